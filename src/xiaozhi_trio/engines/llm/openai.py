"""A language model behind any server with OpenAI's /chat/completions, streamed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import orjson

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.event_stream import EventStreamError, EventStreamParser
from xiaozhi_trio.engines.llm.thinking import ThinkFilter
from xiaozhi_trio.engines.openai_errors import find_report
from xiaozhi_trio.engines.openai_http import Answer, Body, OpenAiServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    import httpx

    from xiaozhi_trio.config.engines import OpenAiLanguageModelSettings
    from xiaozhi_trio.engines.protocols import ChatMessage

NAME = "openai"

_WHOLE_REPLY_BYTES = 1_048_576
_DONE = "[DONE]"
_NOT_A_STREAM = frozenset({"text/html", "application/xml", "text/xml"})


class OpenAiLanguageModel:
    """`LanguageModel` over HTTP.

    Only the words to be spoken are given: `reasoning_content` and `<think>` are left
    out. A server that ignores `stream` and answers with one JSON object is understood.
    """

    def __init__(
        self,
        settings: OpenAiLanguageModelSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._server = OpenAiServer(NAME, settings, transport=transport)

    @property
    def name(self) -> str:
        """The name it is configured by."""
        return NAME

    async def load(self) -> None:
        """Check the settings; the server is not contacted. Raises `EngineError`."""
        try:
            self._body(())
        except TypeError as error:
            raise EngineError(
                f"extra cannot be sent as JSON: {error}",
                engine=NAME,
                category=EngineErrorCategory.BAD_REQUEST,
            ) from error
        await self._server.load()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    @contextlib.asynccontextmanager
    async def reply(self, messages: Sequence[ChatMessage]) -> AsyncIterator[AsyncIterator[str]]:
        """Stream the reply; leaving the block closes the stream, by which servers stop generating.

        Raises `EngineError`, on entering or from the iterator.
        """
        request = self._server.post(
            "/chat/completions", self._body(messages), accept="text/event-stream"
        )
        async with request as answer, contextlib.aclosing(_pieces(answer)) as pieces:
            yield pieces

    def _body(self, messages: Sequence[ChatMessage]) -> Body:
        return Body.json(
            {
                "model": self._settings.model,
                "temperature": self._settings.temperature,
                "max_tokens": self._settings.max_tokens,
                **self._settings.extra,
                "messages": [attrs.asdict(message) for message in messages],
                "stream": True,
            }
        )


async def _pieces(answer: Answer) -> AsyncGenerator[str, None]:
    if answer.content_type in _NOT_A_STREAM:
        raise answer.errors.bad_response(
            f"the server sent {answer.content_type} instead of a reply; check base_url",
            await answer.read_up_to(1024),
        )
    deltas = (
        _whole_reply(answer)
        if answer.content_type == "application/json"
        else _streamed_reply(answer)
    )
    thoughts = ThinkFilter()
    async with contextlib.aclosing(deltas):
        async for delta in deltas:
            if piece := thoughts.feed(delta):
                yield piece
                answer.expect_next()
    if piece := thoughts.close():
        yield piece


async def _whole_reply(answer: Answer) -> AsyncGenerator[str, None]:
    body = await answer.read_up_to(_WHOLE_REPLY_BYTES)
    if text := _text_of(answer, body, "message"):
        yield text


async def _streamed_reply(answer: Answer) -> AsyncGenerator[str, None]:
    parser = EventStreamParser()
    beginning = b""
    empty = True
    ended = False
    while not ended:
        chunk = await answer.read_some()
        ended = not chunk
        if empty and not beginning:
            beginning = chunk
        try:
            events = parser.feed(chunk) if chunk else parser.close()
        except EventStreamError as error:
            raise answer.errors.bad_response(str(error), beginning) from error
        for data in events:
            empty = False
            if data.strip() == _DONE:
                await answer.finish()
                return
            if text := _text_of(answer, data, "delta"):
                yield text
    if empty:
        raise answer.errors.bad_response("the answer held no event", beginning)


def _text_of(answer: Answer, data: bytes | str, member: str) -> str:
    """The text of a completion or of one chunk of it; empty where it brings none."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise answer.errors.bad_response("the server sent no JSON", data) from error
    if (report := find_report(value)) is not None:
        raise answer.errors.reported(report)
    match value:
        case {"choices": [{**choice}, *_]}:
            part = choice.get(member)
            content = part.get("content") if isinstance(part, Mapping) else None
            return content if isinstance(content, str) else ""
        case {**_anything}:
            return ""
        case _:
            raise answer.errors.bad_response("the server sent no JSON object", data)
