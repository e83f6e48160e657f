"""A language model behind any server with OpenAI's /chat/completions, streamed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.event_stream import EventStreamError, EventStreamParser
from xiaozhi_trio.engines.llm.call_assembler import CallAssembler
from xiaozhi_trio.engines.llm.plain_dialogue import plain_dialogue
from xiaozhi_trio.engines.llm.thinking import ThinkFilter
from xiaozhi_trio.engines.openai_errors import RequestRefusedError, find_report
from xiaozhi_trio.engines.openai_http import Answer, Body, OpenAiServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    import httpx

    from xiaozhi_trio.config.engines import OpenAiLanguageModelSettings
    from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall, ToolSpec

NAME = "openai"

_WHOLE_REPLY_BYTES = 1_048_576
_DONE = "[DONE]"
_NOT_A_STREAM = frozenset({"text/html", "application/xml", "text/xml"})


class OpenAiLanguageModel:
    """`LanguageModel` over HTTP.

    Only the words to be spoken are given: `reasoning_content` and `<think>` are left
    out. A server that ignores `stream` and answers with one JSON object is understood.
    Calls of tools come after the words, once they are complete. Where the server refuses
    a request because of the tools (Ollama does, for models whose template has no place
    for them), none are offered to it any more.
    """

    def __init__(
        self,
        settings: OpenAiLanguageModelSettings,
        *,
        name: str = NAME,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._server = OpenAiServer(name, settings, transport=transport)
        self._takes_tools = True

    @property
    def name(self) -> str:
        """The name it is configured by."""
        return self._name

    async def load(self) -> None:
        """Check the settings; the server is not contacted. Raises `EngineError`."""
        try:
            self._body(())
        except TypeError as error:
            raise EngineError(
                f"extra cannot be sent as JSON: {error}",
                engine=self._name,
                category=EngineErrorCategory.BAD_REQUEST,
            ) from error
        await self._server.load()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    @contextlib.asynccontextmanager
    async def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[AsyncIterator[str | ToolCall]]:
        """Stream the reply; leaving the block closes the stream, by which servers stop generating.

        Raises `EngineError`, on entering or from the iterator.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._ask(messages, tools))
            except RequestRefusedError as error:
                if not (tools and self._takes_tools and _is_about_tools(error)):
                    raise
                logger.bind(engine=self._name, reason=str(error)).warning(
                    "language model takes no tools"
                )
                self._takes_tools = False
                answer = await stack.enter_async_context(self._ask(messages, ()))
            yield await stack.enter_async_context(contextlib.aclosing(_pieces(answer)))

    def _ask(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        try:
            body = self._body(messages, tools)
        except TypeError as error:
            raise EngineError(
                f"the dialogue or a tool cannot be sent as JSON: {error}",
                engine=self._name,
                category=EngineErrorCategory.BAD_REQUEST,
            ) from error
        return self._server.post("/chat/completions", body, accept="text/event-stream")

    def _body(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()) -> Body:
        if not self._takes_tools:
            messages, tools = plain_dialogue(messages), ()
        request = {
            "model": self._settings.model,
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            **self._settings.extra,
            "messages": [_message(message) for message in messages],
            "stream": True,
        }
        if tools:
            request["tools"] = [_function(tool) for tool in tools]
        return Body.json(request)


def _message(message: ChatMessage) -> dict[str, object]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
    if not message.calls:
        return {"role": message.role, "content": message.content}
    return {
        "role": message.role,
        "content": message.content or None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _repeatable(call.arguments)},
            }
            for call in message.calls
        ],
    }


def _repeatable(arguments: str) -> str:
    """The arguments, where they are an object.

    Servers parse them again for their chat templates, and some refuse the whole dialogue
    for ever where the model once wrote bad JSON.
    """
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return "{}"
    return arguments if isinstance(value, dict) else "{}"


def _function(tool: ToolSpec) -> dict[str, object]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }


def _is_about_tools(error: RequestRefusedError) -> bool:
    return error.category is EngineErrorCategory.BAD_REQUEST and b"tool" in error.body.lower()


async def _pieces(answer: Answer) -> AsyncGenerator[str | ToolCall, None]:
    if answer.content_type in _NOT_A_STREAM:
        raise answer.errors.bad_response(
            f"the server sent {answer.content_type} instead of a reply; check base_url",
            await answer.read_up_to(1024),
        )
    parts = (
        _whole_reply(answer)
        if answer.content_type == "application/json"
        else _streamed_reply(answer)
    )
    thoughts = ThinkFilter()
    calls = CallAssembler()
    async with contextlib.aclosing(parts):
        async for part in parts:
            content, tool_calls = part.get("content"), part.get("tool_calls")
            if isinstance(content, str) and (piece := thoughts.feed(content)):
                yield piece
                answer.expect_next()
            if tool_calls:
                calls.feed(tool_calls)
                answer.expect_next()
    if piece := thoughts.close():
        yield piece
    for call in calls.finish():
        yield call


async def _whole_reply(answer: Answer) -> AsyncGenerator[Mapping[str, object], None]:
    body = await answer.read_up_to(_WHOLE_REPLY_BYTES)
    yield _part_of(answer, body, "message")


async def _streamed_reply(answer: Answer) -> AsyncGenerator[Mapping[str, object], None]:
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
            yield _part_of(answer, data, "delta")
    if empty:
        raise answer.errors.bad_response("the answer held no event", beginning)


def _part_of(answer: Answer, data: bytes | str, member: str) -> Mapping[str, object]:
    """What a completion, or one chunk of it, adds to the reply; empty where it adds nothing."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise answer.errors.bad_response("the server sent no JSON", data) from error
    if (report := find_report(value)) is not None:
        raise answer.errors.reported(report)
    match value:
        case {"choices": [{**choice}, *_]}:
            part = choice.get(member)
            return part if isinstance(part, Mapping) else {}
        case {**_anything}:
            return {}
        case _:
            raise answer.errors.bad_response("the server sent no JSON object", data)
