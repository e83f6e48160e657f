"""Asking a JSON-RPC peer things over one connection and matching what it answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import attrs
import trio
from loguru import logger

from xiaozhi_trio.wire import jsonrpc
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_REFUSALS: Final = 32
"""Requests of the peer that are answered; more are ignored, so that a peer which asks
without reading cannot fill the queue of what is sent to it."""
MAX_COMPLAINTS: Final = 8
"""Malformed payloads that are logged on one connection."""


class CallError(Exception):
    """A request brought no result."""

    reason = "call_failed"
    """A stable word for logs, counters and tests."""

    def __init__(self, method: str, text: str) -> None:
        super().__init__(text)
        self.method = method

    def __str__(self) -> str:
        return f"{self.method}: {self.args[0]}"


class CallTimeoutError(CallError):
    """No answer came in time. One that still comes is ignored."""

    reason = "no_reply"

    def __init__(self, method: str, seconds: float) -> None:
        super().__init__(method, f"no answer within {seconds:g} s")


class CallRefusedError(CallError):
    """The peer answered with an error, whose message is the text."""

    reason = "error_reply"

    def __init__(self, method: str, error: jsonrpc.Error) -> None:
        super().__init__(method, error.message or "an error without a message")
        self.code = error.code
        """None where the peer gave none."""


@attrs.define(eq=False)
class _Waiter:
    """A request in flight."""

    answered: trio.Event = attrs.field(factory=trio.Event)
    reply: jsonrpc.Result | jsonrpc.Error | None = None


class JsonRpcClient:
    """The asking side of one connection.

    Ids count up from 1 and are never used twice, so an answer that comes after its
    request was given up means nothing to anybody. What the peer asks of us is
    refused as not implemented; what it notifies us of is accepted and dropped.
    """

    def __init__(self, send: Callable[[Mapping[str, object]], None]) -> None:
        """`send` queues one payload for the peer and returns at once."""
        self._send = send
        self._ids = itertools.count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._refusals = 0
        self._complaints = 0

    async def request(
        self, method: str, params: Mapping[str, object] | None = None, *, within: float
    ) -> object:
        """Ask, and give the result: any JSON, to be checked by the caller.

        Waits `within` seconds at most. Raises `CallTimeoutError` and `CallRefusedError`.
        A caller that is cancelled forgets the request; the peer is not told.
        """
        request_id = next(self._ids)
        waiter = self._waiters[request_id] = _Waiter()
        try:
            self._send(jsonrpc.Request(request_id, method, params).payload())
            with trio.move_on_after(within):
                await waiter.answered.wait()
        finally:
            self._waiters.pop(request_id, None)
        match waiter.reply:
            case None:
                raise CallTimeoutError(method, within)
            case jsonrpc.Error() as error:
                raise CallRefusedError(method, error)
            case jsonrpc.Result(value=value):
                return value

    def notify(self, method: str, params: Mapping[str, object] | None = None) -> None:
        """Tell the peer something that wants no answer."""
        self._send(jsonrpc.Notification(method, params).payload())

    def receive(self, payload: object) -> None:
        """Take one payload of the peer, whatever it is; raises nothing for bad ones."""
        try:
            incoming = jsonrpc.parse(payload)
        except ProtocolViolation as violation:
            self._complain(violation)
            return
        match incoming:
            case jsonrpc.Result() | jsonrpc.Error():
                self._settle(incoming)
            case jsonrpc.Request():
                self._refuse(incoming)
            case jsonrpc.Notification():
                pass

    def _settle(self, reply: jsonrpc.Result | jsonrpc.Error) -> None:
        waiter = None if reply.id is None else self._waiters.pop(reply.id, None)
        if waiter is None:
            logger.bind(id=reply.id).debug("mcp reply without a request ignored")
            return
        waiter.reply = reply
        waiter.answered.set()

    def _refuse(self, request: jsonrpc.Request) -> None:
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            return
        logger.bind(id=request.id, method=request.method).debug("mcp request refused")
        refusal = jsonrpc.Error(
            request.id, "Method not implemented by this server", jsonrpc.METHOD_NOT_FOUND
        )
        self._send(refusal.payload())

    def _complain(self, violation: ProtocolViolation) -> None:
        self._complaints += 1
        if self._complaints > MAX_COMPLAINTS:
            return
        logger.bind(
            reason=violation.reason,
            problem=str(violation),
            last_shown=self._complaints == MAX_COMPLAINTS,
        ).warning("mcp message ignored")
