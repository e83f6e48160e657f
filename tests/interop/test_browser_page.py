"""The public browser test page, replayed: a page has no headers of its own on a WebSocket.

What the page does, and in which order, is told by its scripts: it asks OTA across
origins, dials with its identity in the query, greets, lists its tools, sends typed text
and microphone packets, and plays through a decoder with room for 60 ms.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import attrs
import httpx
import pytest
import trio
from loguru import logger
from trio_websocket import wrap_client_stream

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.config.settings import (
    AuthenticationSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server, ServingAddresses
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
    Tone,
)
from xiaozhi_trio.testing.websocket_link import WebSocketLink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    OpenHouse = Callable[..., Awaitable["House"]]

pytestmark = pytest.mark.sockets

ORIGIN = "http://127.0.0.1:8006"
DEVICE_ID = "4A:7C:19:E2:05:BD"
CLIENT_ID = "web_test_client"
WAKE_TEXT = "嘿，你好呀"

PAGE_KNOWS = {"hello", "tts", "audio", "stt", "llm", "mcp"}
"""The page prints every other type into its chat as unknown."""
PAGE_RATE = 16_000
PAGE_BUFFER_SAMPLES = 960
DTX_PACKET = b"\x58"
"""Opus's whole say on 60 ms of silence."""

PAGE_TOOLS = (
    "self_camera_take_photo",
    "self.get_device_status",
    "self.audio_speaker.set_volume",
    "self.screen.set_brightness",
)


class BrowserSend(trio.abc.SendStream):
    """Sends the upgrade as a browser words it, in place of the library's."""

    def __init__(self, stream: trio.SocketStream, target: str) -> None:
        self._stream = stream
        self._target = target
        self._upgraded = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data if self._upgraded else self._head(bytes(data)))
        self._upgraded = True

    def _head(self, head: bytes) -> bytes:
        key = re.search(rb"Sec-WebSocket-Key: *(\S+)", head)
        host = re.search(rb"Host: *(\S+)", head)
        assert key is not None
        assert host is not None
        lines = (
            f"GET {self._target} HTTP/1.1",
            f"Host: {host[1].decode()}",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Accept: */*",
            "Accept-Language: zh-CN,zh;q=0.8,en-US;q=0.5,en;q=0.3",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Sec-WebSocket-Version: 13",
            f"Origin: {ORIGIN}",
            "Sec-WebSocket-Extensions: permessage-deflate",
            f"Sec-WebSocket-Key: {key[1].decode()}",
            "Connection: keep-alive, Upgrade",
            "Sec-Fetch-Dest: empty",
            "Sec-Fetch-Mode: websocket",
            "Sec-Fetch-Site: same-site",
            "Pragma: no-cache",
            "Cache-Control: no-cache",
            "Upgrade: websocket",
        )
        return "\r\n".join([*lines, "", ""]).encode()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Log:
    """The server's log while it is written."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._news = trio.lowlevel.ParkingLot()
        # Lines may come from any thread.
        self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    def write(self, message: Any) -> None:
        """A sink for loguru."""
        record = message.record
        line = {"event": record["message"], "level": record["level"].name, **record["extra"]}
        self._soon(self._take, line)

    def _take(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self._news.unpark_all()

    async def wait_for(self, event: str) -> dict[str, Any]:
        """The first line of an event, as soon as it is written."""
        with trio.fail_after(5):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                await self._news.park()


@attrs.define
class House:
    """A server with scripted engines."""

    server: Server
    addresses: ServingAddresses
    llm: ScriptedLanguageModel
    asr: ScriptedRecognizer
    log: Log

    @property
    def ota_url(self) -> str:
        return f"http://127.0.0.1:{self.addresses.http_port}/xiaozhi/ota/"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.addresses.websocket_port}/xiaozhi/v1/"


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = Log()
    handle = logger.add(log.write, level="DEBUG")
    yield log
    logger.remove(handle)


@pytest.fixture
async def open_house(tmp_path: Path, log: Log) -> AsyncIterator[OpenHouse]:
    servers: list[Server] = []
    async with trio.open_nursery() as nursery:

        async def start(*replies: list[str | Exception], **changes: Any) -> House:
            settings = Settings(
                server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0),
                state=StateSettings(directory=str(tmp_path)),
                **changes,
            )
            llm = ScriptedLanguageModel(*replies or [["我很好。"]])
            asr = ScriptedRecognizer("今天星期几")
            tts = ScriptedSynthesizer(tone=Tone(ms_per_character=40))
            server = await Server.build(
                settings,
                EngineSet(
                    vad=EngineSlot.of_ready(LoudnessDetector()),
                    asr=EngineSlot.of_ready(asr),
                    llm=EngineSlot.of_ready(llm),
                    tts=EngineSlot.of_ready(tts),
                ),
            )
            servers.append(server)
            addresses: ServingAddresses = await nursery.start(server.run)
            return House(server, addresses, llm, asr, log)

        yield start
        for server in servers:
            server.shutdown.set()


@attrs.define
class Page:
    """One visit to the page."""

    house: House
    device: SimulatedDevice
    link: WebSocketLink
    session_id: str = ""

    async def greet(self) -> Mapping[str, Any]:
        """What the page sends as soon as the WebSocket is open, and waits five seconds for."""
        with trio.fail_after(5):
            await self.device.send_json(
                type="hello",
                device_id=DEVICE_ID,
                device_name="测试设备",
                device_mac=DEVICE_ID,
                features={"mcp": True, "emoji": False},
            )
            answer = (await self.device.wait_for("hello")).body
        self.session_id = answer["session_id"]
        return answer

    async def wake(self) -> None:
        """What it sends upon the server's hello, in one go."""
        await self.device.send_json(
            session_id=self.session_id, type="listen", state="detect", text=WAKE_TEXT
        )
        await self.device.send_json(
            session_id=self.session_id, type="listen", state="start", mode="auto"
        )

    async def type_text(self, text: str) -> None:
        """A line of its input field; it has no session id there."""
        await self.device.send_json(type="listen", state="detect", text=text)

    async def abort(self) -> None:
        await self.device.send_json(
            session_id=self.session_id, type="abort", reason="wake_word_detected"
        )

    async def answer_mcp(self) -> None:
        """Answer `initialize` and `tools/list`, shrug at the rest."""
        initialize = (await self.device.wait_for("mcp", count=1)).body["payload"]
        assert initialize["method"] == "initialize"
        await self._reply(
            initialize["id"],
            {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "xiaozhi-web-test", "version": "2.1.0"},
            },
        )
        initialized = (await self.device.wait_for("mcp", count=2)).body["payload"]
        assert initialized == {"jsonrpc": "2.0", "method": "notifications/initialized"}
        listing = (await self.device.wait_for("mcp", count=3)).body["payload"]
        assert listing["method"] == "tools/list"
        schema = {"type": "object", "properties": {}}
        tools = [{"name": name, "description": name, "inputSchema": schema} for name in PAGE_TOOLS]
        await self._reply(listing["id"], {"tools": tools})

    async def _reply(self, request_id: int, result: Mapping[str, Any]) -> None:
        payload = {"jsonrpc": "2.0", "id": request_id, "result": result}
        await self.device.send_json(session_id=self.session_id, type="mcp", payload=payload)

    def lost_ms(self) -> float:
        """How much of the first reply the page had not played when `tts stop` emptied its queue.

        Taken from the earliest moment at which each packet can have begun to play.
        """
        start = self.device.events.index(self.device.of_kind("tts start")[0])
        stop = self.device.events.index(self.device.of_kind("tts stop")[0])
        played_until = 0.0
        for event in self.device.events[start:stop]:
            if event.packet is not None:
                played_until = max(played_until, event.at) + 0.06
        return max(0.0, played_until - self.device.events[stop].at) * 1000


@asynccontextmanager
async def visit(house: House, url: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
    """Open the WebSocket as the page does: everything it has to say is in the query."""
    parts = urlsplit(url)
    target = f"{parts.path}?{urlencode(query)}"
    assert parts.hostname is not None
    assert parts.port is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    browser: Any = trio.StapledStream(BrowserSend(stream, target), stream)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5):
                connection = await wrap_client_stream(
                    nursery, browser, parts.netloc, target, message_queue_size=64
                )
            link = WebSocketLink(connection)
            page = Page(house, SimulatedDevice(link), link)
            nursery.start_soon(page.device.listen_to_server)
            yield page
            await link.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


IDENTITY = {"device-id": DEVICE_ID, "client-id": CLIENT_ID}


def allows(answer: httpx.Response, *headers: str) -> bool:
    """Whether a browser lets the page of `ORIGIN` send these headers and read the answer."""
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    names = {name.strip() for name in allowed.split(",")}
    origin = answer.headers.get("access-control-allow-origin")
    return answer.is_success and origin in ("*", ORIGIN) and names.issuperset(headers)


async def preflight(client: httpx.AsyncClient, url: str, *headers: str) -> httpx.Response:
    return await client.options(
        url,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(headers),
        },
    )


async def test_the_page_gets_its_address_and_token_from_ota_and_is_let_in(
    open_house: OpenHouse,
) -> None:
    house = await open_house(authentication=AuthenticationSettings(enabled=True))
    async with httpx.AsyncClient() as browser:
        asked = await preflight(browser, house.ota_url, "client-id", "content-type", "device-id")
        assert allows(asked, "client-id", "content-type", "device-id")
        assert "POST" in asked.headers["access-control-allow-methods"]
        answer = await browser.post(
            house.ota_url,
            headers={
                "Origin": ORIGIN,
                "Content-Type": "application/json",
                "Device-Id": DEVICE_ID,
                "Client-Id": CLIENT_ID,
            },
            json={
                "version": 0,
                "mac_address": DEVICE_ID,
                "application": {"name": "xiaozhi-web-test", "version": "1.0.0"},
                "board": {"type": "xiaozhi-web-test", "mac": DEVICE_ID},
            },
        )
        assert allows(answer)
        websocket = answer.json()["websocket"]
        query = {"authorization": f"Bearer {websocket['token']}", **IDENTITY}
        async with visit(house, websocket["url"], query) as page:
            await page.greet()
            await page.device.wait_for("mcp")
            vision = page.device.of_kind("mcp")[0].body["payload"]["params"]["capabilities"]
            assert vision["vision"]["token"]
            asked = await preflight(
                browser, vision["vision"]["url"], "authorization", "client-id", "device-id"
            )
            assert allows(asked, "authorization", "client-id", "device-id")


async def test_a_page_with_its_identity_in_the_query_alone_is_let_in_and_greeted(
    open_house: OpenHouse,
) -> None:
    house = await open_house()
    async with visit(house, house.websocket_url, IDENTITY) as page:
        hello = await page.greet()
        assert hello["type"] == "hello"
        assert hello["transport"] == "websocket"
        assert hello["session_id"]
    connected = await house.log.wait_for("device connected")
    assert connected["device"] == DEVICE_ID.lower()
    assert connected["client"] == CLIENT_ID


async def test_the_greeting_is_spoken_to_its_end_though_the_page_opens_its_microphone(
    open_house: OpenHouse,
) -> None:
    house = await open_house()
    async with visit(house, house.websocket_url, IDENTITY) as page:
        await page.greet()
        await page.wake()
        await page.answer_mcp()
        await page.device.wait_for("tts stop")
        assert [kind for kind in page.device.kinds if kind != "mcp"] == [
            "hello",
            "stt",
            "tts start",
            "tts sentence_start",
            "audio",
            "tts stop",
        ]
        assert page.device.of_kind("tts sentence_start")[0].body["text"] == "我在呢，请说。"
        assert page.device.spoken_ms() == pytest.approx(7 * 40, abs=60)
        assert page.lost_ms() == 0
        assert house.llm.dialogues == []
    ready = await house.log.wait_for("device mcp ready")
    assert ready["tools"] == len(PAGE_TOOLS)


async def test_typed_text_is_answered_in_what_the_page_can_show_and_play(
    open_house: OpenHouse,
) -> None:
    house = await open_house(["😀 我很好，", "谢谢你！"])
    async with visit(house, house.websocket_url, IDENTITY) as page:
        await page.greet()
        await page.type_text("你好")
        await page.device.wait_for("tts stop")
        assert [kind for kind in page.device.kinds if kind != "mcp"] == [
            "hello",
            "stt",
            "tts start",
            "tts sentence_start",
            "audio",
            "tts stop",
        ]
        assert page.device.of_kind("stt")[0].body["text"] == "你好"
        assert page.device.of_kind("tts sentence_start")[0].body["text"] == "我很好，谢谢你！"
        assert {event.kind.split()[0] for event in page.device.events} <= PAGE_KNOWS
        assert page.lost_ms() == 0
        decoder = OpusDecoder(PAGE_RATE)
        for event in page.device.of_kind("audio"):
            assert event.packet
            assert len(decoder.decode(event.packet)) // 2 <= PAGE_BUFFER_SAMPLES
        assert page.device.spoken_ms() == pytest.approx(8 * 40, abs=60)


async def test_typing_into_a_reply_silences_it_and_is_answered(
    open_house: OpenHouse,
) -> None:
    house = await open_house(["很久很久以前，有一座很高很高的山。"], ["好。"])
    async with visit(house, house.websocket_url, IDENTITY) as page:
        await page.greet()
        await page.type_text("讲个故事")
        await page.device.wait_for("audio", count=2)
        await page.abort()
        aborted_at = trio.current_time()
        await page.type_text("好了")
        await page.device.wait_for("tts stop", count=2)
        silenced_at = page.device.of_kind("tts stop")[0].at
        assert silenced_at - aborted_at < 0.3
        assert [kind for kind in page.device.kinds if kind != "mcp"] == [
            "hello",
            *("stt", "tts start", "tts sentence_start", "audio", "tts stop") * 2,
        ]
        assert page.device.of_kind("tts sentence_start")[1].body["text"] == "好。"


async def test_the_microphone_is_heard_through_dtx_and_its_last_packet_is_empty(
    open_house: OpenHouse,
) -> None:
    house = await open_house()
    async with visit(house, house.websocket_url, IDENTITY) as page:
        await page.greet()
        await page.device.send_json(
            session_id=page.session_id, type="listen", state="start", mode="auto"
        )
        await page.device.send_raw(b"")
        await page.device.speak(0.6, burst=True)
        await page.device.silence(0.12, burst=True)
        for _ in range(20):
            await page.device.send_packet(DTX_PACKET)
        await page.device.send_raw(b"")
        await page.device.wait_for("tts stop")
        assert page.device.of_kind("stt")[0].body["text"] == "今天星期几"
        assert len(house.asr.utterances) == 1
        assert [kind for kind in page.device.kinds if kind != "mcp"] == [
            "hello",
            "stt",
            "tts start",
            "tts sentence_start",
            "audio",
            "tts stop",
        ]


async def test_hanging_up_in_the_middle_of_a_reply_frees_the_session(
    open_house: OpenHouse,
) -> None:
    house = await open_house(["很久很久以前，有一座很高很高的山。"])
    async with visit(house, house.websocket_url, IDENTITY) as page:
        await page.greet()
        await page.type_text("讲个故事")
        await page.device.wait_for("audio")
        assert len(house.server.roster) == 1
    ended = await house.log.wait_for("device disconnected")
    assert ended["reason"] == "peer_gone"
    assert len(house.server.roster) == 0
    assert {line["level"] for line in house.log.lines} <= {"DEBUG", "INFO"}
