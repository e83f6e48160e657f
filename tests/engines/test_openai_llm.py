from __future__ import annotations

import functools
import gc
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import orjson
import pytest
import trio

from xiaozhi_trio.config.engines import OpenAiLanguageModelSettings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.llm.openai import OpenAiLanguageModel
from xiaozhi_trio.engines.protocols import ChatMessage, LanguageModel, ToolCall, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engines.conftest import Exchange, MemoryServer
    from trio.testing import MockClock

SETTINGS = OpenAiLanguageModelSettings(base_url="http://server.test/v1", model="m", api_key="sk-x")
MESSAGES = [ChatMessage("system", "Be brief."), ChatMessage("user", "你好")]


def event(**delta: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def answered_with(
    content: bytes,
    content_type: str = "text/event-stream",
    settings: OpenAiLanguageModelSettings = SETTINGS,
) -> list[str]:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=content, headers={"content-type": content_type})

    return await pieces_of(settings, httpx.MockTransport(handler))


async def pieces_of(
    settings: OpenAiLanguageModelSettings, transport: httpx.AsyncBaseTransport
) -> list[str]:
    engine = OpenAiLanguageModel(settings, transport=transport)
    await engine.load()
    async with engine.reply(MESSAGES) as pieces:
        return [piece async for piece in pieces]


def test_it_is_a_language_model() -> None:
    engine = OpenAiLanguageModel(SETTINGS)
    assert isinstance(engine, LanguageModel)
    assert engine.name == "openai"


async def test_the_request() -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=DONE)

    settings = attrs.evolve(
        SETTINGS, extra={"enable_thinking": False, "max_tokens": 9, "stream": False, "messages": []}
    )
    await pieces_of(settings, httpx.MockTransport(handler))
    (request,) = requests
    assert str(request.url) == "http://server.test/v1/chat/completions"
    assert orjson.loads(request.content) == {
        "model": "m",
        "temperature": 0.7,
        "max_tokens": 9,
        "enable_thinking": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "你好"},
        ],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        (event(role="assistant", content="") + event(content="你") + event(content="好") + DONE,
         ["你", "好"]),
        (event(content="a") + event(content="b"), ["a", "b"]),
        (event(content="a")[:-1], ["a"]),
        (b": ping\n\n" + event(content="a") + b":\n\n" + DONE, ["a"]),
        (event(content="a") + DONE + event(content="b"), ["a"]),
        (b'data: {"choices": []}\n\n' + event(content="a") + b'data: {"usage": {}}\n\n', ["a"]),
        (b'data: {"choices": null}\n\n' + event(content="a"), ["a"]),
        (event(reasoning_content="hm", content=None) + event(content="a"), ["a"]),
        (b'data: {"choices": [{"finish_reason": "stop"}]}\n\n', []),
        (b'data: {"choices": [{"delta": null}]}\n\n' + DONE, []),
        (event(content=[{"type": "thinking"}]) + event(content="a"), ["a"]),
        (event(content="<thi") + event(content="nk>hm</th") + event(content="ink>\n\nyes"),
         ["yes"]),
        (event(content="1 <") + event(content=" 2"), ["1 ", "< 2"]),
        (event(content="1 <"), ["1 ", "<"]),
        (event(content="X").replace(b"X", b"\xff"), ["\ufffd"]),
        (event(content="a").replace(b"\n", b"\r\n") + b"data:[DONE]\r\n\r\n", ["a"]),
    ],
)  # fmt: skip
async def test_streams(content: bytes, pieces: list[str]) -> None:
    assert await answered_with(content) == pieces


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/octet-stream"])
async def test_a_stream_by_another_name(content_type: str) -> None:
    assert await answered_with(event(content="a") + DONE, content_type) == ["a"]


async def test_a_server_that_does_not_stream() -> None:
    content = b'{"choices": [{"message": {"content": "<think>hm</think>yes"}}]}'
    assert await answered_with(content, "application/json; charset=utf-8") == ["yes"]
    assert await answered_with(b'{"choices": []}', "application/json") == []


@pytest.mark.parametrize(
    ("content", "content_type", "category", "message"),
    [
        (b"<html>\x1b[31m login", "text/html", Category.BAD_RESPONSE, "text/html .*login"),
        (b"upstream died", "text/plain", Category.BAD_RESPONSE, "no event: 'upstream died'"),
        (b"", "text/event-stream", Category.BAD_RESPONSE, "no event"),
        (b": ping\n\n", "text/event-stream", Category.BAD_RESPONSE, "no event"),
        (b"data: {oops\n\n", "text/event-stream", Category.BAD_RESPONSE, "no JSON"),
        (b"data: [1]\n\n", "text/event-stream", Category.BAD_RESPONSE, "no JSON object"),
        (b"<html>", "application/json", Category.BAD_RESPONSE, "no JSON"),
        (b"x" * 300_000, "text/event-stream", Category.BAD_RESPONSE, "longer than"),
        (b'data: {"error": {"message": "slow", "code": 429}}\n\n', "text/event-stream",
         Category.RATE_LIMIT, "slow"),
        (b'event: error\ndata: {"message": "broke"}\n\n', "text/event-stream",
         Category.BAD_RESPONSE, "broke"),
        (b'{"error": {"message": "no", "code": "invalid_api_key"}}', "application/json",
         Category.AUTHENTICATION, "no"),
    ],
)  # fmt: skip
async def test_answers_that_are_no_reply(
    content: bytes, content_type: str, category: Category, message: str
) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        await answered_with(content, content_type)
    assert caught.value.category is category
    assert "\x1b" not in str(caught.value)


async def test_pieces_before_an_error_are_given() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=event(content="a") + b'data: {"error": "b"}\n\n')

    engine = OpenAiLanguageModel(SETTINGS, transport=httpx.MockTransport(handler))
    await engine.load()
    async with engine.reply(MESSAGES) as pieces:
        assert await anext(pieces) == "a"
        with pytest.raises(EngineError, match="b"):
            await anext(pieces)


async def test_an_error_status_is_raised_on_entering() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(401, json={"error": "no"}))
    with pytest.raises(EngineError, match="401") as caught:
        await pieces_of(SETTINGS, transport)
    assert caught.value.engine == "openai"


async def test_pieces_come_one_by_one_and_silence_ends_the_reply(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin(content_type="text/event-stream")
        for number in range(3):
            await trio.sleep(4)
            await exchange.send(event(content=str(number)))
        while True:
            await trio.sleep(1)
            await exchange.send(b": keep-alive\n\n")

    memory_server.handler = handler
    engine = OpenAiLanguageModel(
        attrs.evolve(SETTINGS, timeout_seconds=5.0), transport=memory_server.transport
    )
    await engine.load()
    began = trio.current_time()
    async with engine.reply(MESSAGES) as pieces:
        for number in range(3):
            assert await anext(pieces) == str(number)
            assert trio.current_time() - began == pytest.approx(4 * (number + 1))
        with pytest.raises(EngineError, match="within 5 s"):
            await anext(pieces)
        assert trio.current_time() - began == pytest.approx(12 + 5)


async def test_the_connection_is_kept_after_done(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin(content_type="text/event-stream")
        await exchange.send(event(content="a"), DONE)
        await trio.sleep(0.01)
        await exchange.end()

    memory_server.handler = handler
    for _ in range(2):
        engine = OpenAiLanguageModel(SETTINGS, transport=memory_server.transport)
        await engine.load()
        for _ in range(3):
            async with engine.reply(MESSAGES) as pieces:
                assert [piece async for piece in pieces] == ["a"]
    assert memory_server.connections == 2


@pytest.mark.parametrize("way_out", ["break", "error", "cancel", "cancel in a read"])
async def test_leaving_stops_the_generation(
    autojump_clock: MockClock, memory_server: MemoryServer, way_out: str
) -> None:
    gone = trio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.begin(content_type="text/event-stream")
            await exchange.send(event(content="a"), event(content="b"))
            await exchange.wait_for_disconnect()
        finally:
            gone.set()

    async def use() -> None:
        async with engine.reply(MESSAGES) as pieces:
            async for _ in pieces:
                if way_out == "break":
                    break
                if way_out == "error":
                    raise KeyError
                if way_out == "cancel":
                    await trio.sleep_forever()

    memory_server.handler = handler
    engine = OpenAiLanguageModel(SETTINGS, transport=memory_server.transport)
    await engine.load()
    if way_out == "error":
        with pytest.raises(KeyError):
            await use()
    else:
        with trio.move_on_after(1):
            await use()
    with trio.fail_after(0.001):
        await gone.wait()
    # An abandoned generator would warn here, and warnings are errors.
    gc.collect()


async def test_extra_that_is_no_json_is_found_by_load() -> None:
    engine = OpenAiLanguageModel(attrs.evolve(SETTINGS, extra={"seed": {1, 2}}))
    with pytest.raises(EngineError, match="extra cannot be sent as JSON") as caught:
        await engine.load()
    assert caught.value.category is Category.BAD_REQUEST


@pytest.mark.sockets
async def test_over_a_real_socket_the_server_sees_the_interruption() -> None:
    gone = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                await stream.send_all(event(content="a"))
                await trio.sleep(0.001)
        except trio.BrokenResourceError:
            gone.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        engine = OpenAiLanguageModel(attrs.evolve(SETTINGS, base_url=f"http://127.0.0.1:{port}/v1"))
        await engine.load()
        with trio.CancelScope() as scope:
            async with engine.reply(MESSAGES) as pieces:
                count = 0
                async for _ in pieces:
                    count += 1
                    if count == 5:
                        scope.cancel()
        assert scope.cancelled_caught
        with trio.fail_after(5):
            await gone.wait()
        await engine.aclose()
        nursery.cancel_scope.cancel()
    gc.collect()


TOOL = ToolSpec("volume", "Sets the volume.", {"type": "object", "properties": {}})
CALL = ToolCall("a", "volume", '{"x":1}')


def called(*pieces: dict[str, Any], **delta: Any) -> bytes:
    return event(tool_calls=list(pieces), **delta)


async def asked_with_tools(
    handler: Any,
    messages: Sequence[ChatMessage] = MESSAGES,
    tools: Sequence[ToolSpec] = (TOOL,),
    times: int = 1,
) -> list[str | ToolCall]:
    engine = OpenAiLanguageModel(SETTINGS, transport=httpx.MockTransport(handler))
    await engine.load()
    for _ in range(times):
        async with engine.reply(messages, tools) as pieces:
            told = [piece async for piece in pieces]
    return told


async def test_tools_are_offered_and_calls_repeated() -> None:
    requests: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(orjson.loads(request.content))
        return httpx.Response(200, content=DONE)

    bad = ToolCall("b", "volume", '{"x":')
    dialogue = [
        ChatMessage("user", "Louder!"),
        ChatMessage("assistant", "", (CALL, bad)),
        ChatMessage("tool", "done", call_id="a"),
        ChatMessage("tool", "no JSON", call_id="b"),
    ]
    await asked_with_tools(handler, dialogue)
    (request,) = requests
    assert request["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "volume",
                "description": "Sets the volume.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
    assert request["messages"] == [
        {"role": "user", "content": "Louder!"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "volume", "arguments": '{"x":1}'},
                },
                {"id": "b", "type": "function", "function": {"name": "volume", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "done"},
        {"role": "tool", "tool_call_id": "b", "content": "no JSON"},
    ]


async def test_calls_come_after_the_words() -> None:
    content = (
        event(content="One moment.")
        + called({"index": 0, "id": "a", "function": {"name": "volume", "arguments": ""}})
        + called({"index": 0, "function": {"arguments": '{"x"'}})
        + called({"index": 0, "function": {"arguments": ":1}"}}, content=" So.")
        + DONE
    )
    assert await asked_with_tools(
        lambda _: httpx.Response(
            200, content=content, headers={"content-type": "text/event-stream"}
        )
    ) == ["One moment.", " So.", CALL]


async def test_calls_of_a_reply_in_one_piece() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "volume", "arguments": '{"x":1}'}}
        ],
    }
    assert await asked_with_tools(
        lambda _: httpx.Response(200, json={"choices": [{"message": message}]})
    ) == [CALL]


async def test_a_model_without_tools_is_asked_without() -> None:
    requests: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(orjson.loads(request.content))
        if "tools" in requests[-1]:
            refusal = {"error": {"message": "m does not support tools"}}
            return httpx.Response(400, json=refusal)
        return httpx.Response(
            200,
            content=event(content="Hi.") + DONE,
            headers={"content-type": "text/event-stream"},
        )

    dialogue = [
        ChatMessage("user", "How loud?"),
        ChatMessage("assistant", "", (CALL,)),
        ChatMessage("tool", "70", call_id="a"),
    ]
    assert await asked_with_tools(handler, dialogue, times=2) == ["Hi."]
    assert ["tools" in request for request in requests] == [True, False, False]
    assert requests[1]["messages"] == [{"role": "user", "content": "How loud?\n[volume: 70]"}]


@pytest.mark.parametrize(("status", "told"), [(400, "context too long"), (500, "no tools today")])
async def test_other_refusals_are_no_matter_of_tools(status: int, told: str) -> None:
    requests: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(orjson.loads(request.content))
        return httpx.Response(status, json={"error": {"message": told}})

    with pytest.raises(EngineError, match=told):
        await asked_with_tools(handler)
    assert all("tools" in request for request in requests)


async def test_a_tool_that_is_no_json_is_not_the_servers_fault() -> None:
    nested: Any = {}
    for _ in range(300):
        nested = {"a": nested}
    tool = ToolSpec("deep", "", nested)
    with pytest.raises(EngineError, match="cannot be sent as JSON") as caught:
        await asked_with_tools(lambda _: httpx.Response(200, content=DONE), tools=[tool])
    assert caught.value.category is Category.BAD_REQUEST
