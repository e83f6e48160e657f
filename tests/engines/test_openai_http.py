from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import orjson
import pytest
import trio

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.openai_http import (
    FINISH_SECONDS,
    LONGEST_RETRY_AFTER,
    RETRY_PAUSES,
    Body,
    OpenAiServer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.engines.conftest import Exchange, MemoryServer
    from trio.testing import MockClock

KEY = "sk-very-secret-0123456789"


@attrs.frozen
class Endpoint:
    base_url: str = "http://server.test/v1"
    api_key: str = KEY
    model: str = "model"
    timeout_seconds: float = 10.0


async def loaded(server: MemoryServer, **settings: Any) -> OpenAiServer:
    client = OpenAiServer("openai", Endpoint(**settings), transport=server.transport)
    await client.load()
    return client


async def post(client: OpenAiServer, limit: int = 1_000_000) -> bytes:
    async with client.post("/path", Body.json({"a": "ä"}), accept="text/plain") as answer:
        return await answer.read_up_to(limit)


async def test_a_request_and_its_answer(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"hello", content_type="Text/Plain; charset=utf-8")

    memory_server.handler = handler
    client = await loaded(memory_server, base_url="http://server.test/v1/")
    async with client.post("/path", Body.json({"a": "ä"}), accept="text/plain") as answer:
        assert answer.content_type == "text/plain"
        assert await answer.peek(2) == b"hello"
        assert await answer.read_some() == b"hello"
        assert await answer.read_some() == b""
        assert await answer.read_some() == b""
    (exchange,) = memory_server.exchanges
    assert exchange.target == "/v1/path"
    assert exchange.json == {"a": "ä"}
    assert exchange.headers == {
        "host": "server.test",
        "accept": "text/plain",
        "accept-encoding": "identity",
        "content-length": str(len(exchange.body)),
        "content-type": "application/json",
        "user-agent": "xiaozhi-trio",
        "authorization": f"Bearer {KEY}",
    }
    await client.aclose()
    await client.aclose()


async def test_no_key_sends_no_authorization(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"")

    memory_server.handler = handler
    await post(await loaded(memory_server, api_key=""))
    assert "authorization" not in memory_server.exchanges[0].headers


async def test_finished_answers_keep_their_connection(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(b"x" * 100_000)

    memory_server.handler = handler
    client = await loaded(memory_server)
    for _ in range(3):
        async with client.post("/path", Body.json({}), accept="*/*") as answer:
            await answer.read_up_to(10)
            await answer.finish()
    assert memory_server.connections == 1


async def test_finish_does_not_wait_for_a_server_that_does_not_end(
    autojump_clock: MockClock,
    memory_server: MemoryServer,
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"complete")
        await exchange.wait_for_disconnect()

    memory_server.handler = handler
    client = await loaded(memory_server)
    async with client.post("/path", Body.json({}), accept="*/*") as answer:
        await answer.read_some()
        began = trio.current_time()
        await answer.finish()
        assert trio.current_time() - began == pytest.approx(FINISH_SECONDS)


async def test_finish_minds_no_broken_end(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"complete")
        await exchange.break_off()

    memory_server.handler = handler
    client = await loaded(memory_server)
    async with client.post("/path", Body.json({}), accept="*/*") as answer:
        await answer.read_some()
        await answer.finish()


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize("way_out", ["leave", "error", "cancel"])
async def test_leaving_ends_the_answer_at_the_server(
    autojump_clock: MockClock, memory_server: MemoryServer, way_out: str, read_first: bool
) -> None:
    gone = trio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.begin()
            await exchange.send(b"a", b"b", b"c")
            await exchange.wait_for_disconnect()
        finally:
            gone.set()

    async def use() -> None:
        async with client.post("/path", Body.json({}), accept="*/*") as answer:
            if read_first:
                await answer.read_some()
            if way_out == "error":
                raise KeyError
            if way_out == "cancel":
                await trio.sleep_forever()

    memory_server.handler = handler
    client = await loaded(memory_server)
    if way_out == "error":
        with pytest.raises(KeyError):
            await use()
    else:
        with trio.move_on_after(1):
            await use()
    with trio.fail_after(0.001):
        await gone.wait()


async def test_cancelled_while_reading(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    gone = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.wait_for_disconnect()
        gone.set()

    memory_server.handler = handler
    client = await loaded(memory_server)
    with trio.move_on_after(1) as scope:
        await post(client)
    assert scope.cancelled_caught
    with trio.fail_after(0.001):
        await gone.wait()


async def test_cancelled_before_the_first_byte(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    gone = trio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.wait_for_disconnect()
        gone.set()

    memory_server.handler = handler
    client = await loaded(memory_server)
    with trio.move_on_after(1) as scope:
        await post(client)
    assert scope.cancelled_caught
    with trio.fail_after(0.001):
        await gone.wait()


async def test_the_client_outlives_a_cancelled_request(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def stall(exchange: Exchange) -> None:
        await exchange.wait_for_disconnect()

    async def serve(exchange: Exchange) -> None:
        await exchange.answer(b"ok")

    client = await loaded(memory_server)
    for _ in range(5):
        memory_server.handler = stall
        with trio.move_on_after(1):
            await post(client)
    memory_server.handler = serve
    assert await post(client) == b"ok"


def failing(times: int, status: int = 503, **headers: str) -> Callable[[Exchange], Any]:
    left = times

    async def handler(exchange: Exchange) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            await exchange.answer(b"busy", status, **headers)
        else:
            await exchange.answer(b"ok")

    return handler


async def test_a_busy_server_is_tried_again(
    autojump_clock: MockClock, memory_server: MemoryServer, log_lines: Sequence[dict[str, Any]]
) -> None:
    memory_server.handler = failing(2)
    began = trio.current_time()
    assert await post(await loaded(memory_server)) == b"ok"
    assert trio.current_time() - began == pytest.approx(sum(RETRY_PAUSES))
    assert [line["message"] for line in log_lines] == ["engine request is tried again"] * 2
    assert [line["pause"] for line in log_lines] == list(RETRY_PAUSES)
    assert "503" in log_lines[0]["reason"]


async def test_tries_are_few(autojump_clock: MockClock, memory_server: MemoryServer) -> None:
    memory_server.handler = failing(9)
    with pytest.raises(EngineError, match="503") as caught:
        await post(await loaded(memory_server))
    assert caught.value.category is Category.UNAVAILABLE
    assert len(memory_server.exchanges) == 1 + len(RETRY_PAUSES)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_will_not_change_is_not_tried_again(
    autojump_clock: MockClock, memory_server: MemoryServer, status: int
) -> None:
    memory_server.handler = failing(1, status)
    with pytest.raises(EngineError, match=str(status)):
        await post(await loaded(memory_server))
    assert len(memory_server.exchanges) == 1


async def test_retry_after_is_waited_for(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    memory_server.handler = failing(1, 429, retry_after="2")
    began = trio.current_time()
    assert await post(await loaded(memory_server)) == b"ok"
    assert trio.current_time() - began == pytest.approx(LONGEST_RETRY_AFTER)


async def test_a_long_retry_after_is_an_error_at_once(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    memory_server.handler = failing(1, 429, retry_after="20")
    began = trio.current_time()
    with pytest.raises(EngineError) as caught:
        await post(await loaded(memory_server))
    assert caught.value.category is Category.RATE_LIMIT
    assert caught.value.retryable
    assert trio.current_time() == began


async def test_an_unreachable_server(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    import httpcore

    memory_server.refusals = [httpcore.ConnectError("refused")] * 3
    with pytest.raises(EngineError, match=r"cannot connect to server\.test: refused") as caught:
        await post(await loaded(memory_server))
    assert caught.value.category is Category.CONNECTIVITY
    assert memory_server.refusals == []


async def test_a_kept_connection_that_went_away_is_replaced(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        if len(memory_server.exchanges) == 2:
            await exchange.break_off()
        else:
            await exchange.answer(b"ok")

    memory_server.handler = handler
    client = await loaded(memory_server)
    assert await post(client) == b"ok"
    assert await post(client) == b"ok"
    assert memory_server.connections == 2


async def test_an_answer_that_breaks_off_is_not_tried_again(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"half")
        await exchange.break_off()

    memory_server.handler = handler
    with pytest.raises(EngineError, match="broke") as caught:
        await post(await loaded(memory_server))
    assert caught.value.category is Category.CONNECTIVITY
    assert len(memory_server.exchanges) == 1


@pytest.mark.parametrize("stage", ["head", "body", "error body", "retries"])
async def test_one_deadline_until_the_first_piece(
    autojump_clock: MockClock, memory_server: MemoryServer, stage: str
) -> None:
    async def handler(exchange: Exchange) -> None:
        if stage == "retries":
            await trio.sleep(1.2)
            await exchange.answer(b"", 503)
            return
        if stage == "body":
            await trio.sleep(1)
            await exchange.begin()
        elif stage == "error body":
            await exchange.begin(500)
        await exchange.wait_for_disconnect()

    memory_server.handler = handler
    client = await loaded(memory_server, timeout_seconds=3.0)
    began = trio.current_time()
    with pytest.raises(EngineError, match="within 3 s") as caught:
        await post(client)
    assert caught.value.category is Category.TIMEOUT
    assert caught.value.retryable
    assert trio.current_time() - began == pytest.approx(3.0)


async def test_the_deadline_is_renewed_by_pieces_only(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin()
        for _ in range(100):
            await trio.sleep(2)
            await exchange.send(b"x")

    memory_server.handler = handler
    client = await loaded(memory_server, timeout_seconds=3.0)
    async with client.post("/path", Body.json({}), accept="*/*") as answer:
        for _ in range(5):
            assert await answer.read_some() == b"x"
            await trio.sleep(100)
            answer.expect_next()
    async with client.post("/path", Body.json({}), accept="*/*") as answer:
        assert await answer.read_some() == b"x"
        with pytest.raises(EngineError, match="within 3 s"):
            await answer.read_some()


async def test_an_endless_error_page_is_cut(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin(404)
        while True:
            await exchange.send(b"x" * 10_000)
            await trio.lowlevel.checkpoint()

    memory_server.handler = handler
    with pytest.raises(EngineError, match="404 Not Found") as caught:
        await post(await loaded(memory_server))
    assert len(str(caught.value)) < 600


async def test_a_peer_that_does_not_speak_http(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange._stream.send_all(b"SSH-2.0-OpenSSH\r\n\r\n")

    memory_server.handler = handler
    with pytest.raises(EngineError):
        await post(await loaded(memory_server))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": ""}, "base_url"),
        ({"base_url": "server.test/v1"}, "base_url"),
        ({"base_url": "ftp://server.test"}, "base_url"),
        ({"base_url": "http:///v1"}, "base_url"),
        ({"base_url": "http://a b/\x00"}, "base_url"),
        ({"base_url": f"http://me:{KEY}@server.test/v1"}, "api_key"),
        ({"base_url": f"http://server.test/v1?key={KEY}"}, "api_key"),
        ({"model": " "}, "model"),
        ({"api_key": f"{KEY}\n"}, "api_key"),
        ({"api_key": f"{KEY} x"}, "api_key"),
        ({"api_key": "密钥"}, "api_key"),
    ],
)
async def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    client = OpenAiServer("openai", Endpoint(**settings), transport=httpx.MockTransport(print))
    with pytest.raises(EngineError, match=message) as caught:
        await client.load()
    assert caught.value.category is Category.BAD_REQUEST
    assert KEY not in str(caught.value)


async def test_loading_asks_nothing_of_the_network() -> None:
    client = OpenAiServer("openai", Endpoint(base_url="https://192.0.2.1/v1"))
    await client.load()
    await client.aclose()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "gopher://proxy.test"), ("SSL_CERT_FILE", "/nowhere/certificates.pem")],
)
async def test_an_environment_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    client = OpenAiServer("openai", Endpoint())
    with pytest.raises(EngineError, match="environment") as caught:
        await client.load()
    assert caught.value.category is Category.UNAVAILABLE


async def test_use_before_load() -> None:
    client = OpenAiServer("openai", Endpoint())
    with pytest.raises(EngineError, match="before load") as caught:
        await post(client)
    assert caught.value.category is Category.INTERNAL


def test_bodies() -> None:
    assert orjson.loads(Body.json({"a": [1]}).content) == {"a": [1]}
    form = Body.form({"model": "m"}, {"file": ("a.wav", b"RIFF", "audio/wav")})
    boundary = form.content_type.partition("boundary=")[2]
    assert boundary
    assert form.content.count(boundary.encode()) == 3
    assert b'name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF' in form.content
    with pytest.raises(TypeError):
        Body.json({"a": ssl})
