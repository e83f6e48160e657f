"""What can go wrong in a speech or language model, in one small family."""

from __future__ import annotations

import enum


class EngineErrorCategory(enum.Enum):
    """Why an engine failed; decides what the operator is told and whether a retry helps."""

    AUTHENTICATION = "authentication"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    CONNECTIVITY = "connectivity"
    TIMEOUT = "timeout"
    BUSY = "busy"
    BAD_REQUEST = "bad_request"
    BAD_RESPONSE = "bad_response"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class EngineError(Exception):
    """An engine could not do what was asked of it.

    Every engine translates its library's errors into this one at its own edge.
    The message is meant for the log: it never holds a secret or a token.
    """

    def __init__(
        self,
        message: str,
        *,
        engine: str,
        category: EngineErrorCategory,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.engine = engine
        """Name of the engine, as in the configuration (`whisper`, `openai`, …)."""
        self.category = category
        self.retryable = retryable
        """True where the same request may well succeed a moment later."""

    def copy(self) -> EngineError:
        """An equal one, for each of several callers: a raised exception collects tracebacks."""
        return EngineError(
            self.args[0], engine=self.engine, category=self.category, retryable=self.retryable
        )

    def __str__(self) -> str:
        return f"{self.engine}: {self.args[0]} ({self.category.value})"
