"""What hurts other servers, row by row, over real sockets against ours.

First what WebSocket servers on Trio die of, then the messages that cost the reference
server a connection, and bugs of its doorway.

Every row sends one peer's input, looks at what that peer sees, and then asks three
things: that the next client is served, that nothing was an error of ours, and that
a device in the middle of a conversation, heard and spoken to meanwhile, got every
packet in time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import struct
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings, Settings
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import serve_http
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.http.tokens import SteadyTokens
from xiaozhi_trio.session.encoding import encoding_threads
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.session.session import Session, SessionServices
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
)
from xiaozhi_trio.testing.websocket_link import dial
from xiaozhi_trio.wire.closing import NORMAL, PEER_GONE, Closing
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from xiaozhi_trio.wire.handshake import Handshake

pytestmark = pytest.mark.sockets

PATH = "/xiaozhi/v1/"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = bytes(4)
PING, PONG = b"\x89\x81" + MASK + b"p", b"\x8a\x01p"
SIGNER = TokenSigner(secret="s" * 32, lifetime_seconds=60)
LIMITS = LimitSettings(
    handshake_seconds=0.5,
    hello_seconds=0.5,
    send_seconds=1,
    message_bytes=65_536,
    messages_per_second=1000,
)
STORY = ["It was a dark and stormy night. "] * 100
BEHAVIOURS = (
    "echo", "raises-before", "returns-at-once", "raises-after", "busy", "flood", "silent"
)  # fmt: skip
LONGEST_GAP = 0.25
"""Seconds between two packets of 60 ms; the device holds 0.3 s ahead. Tight timing is for a
quiet machine, this is for any."""


class Pipe:
    """The outbox of a scripted session."""

    def __init__(self) -> None:
        self.put, self._take = trio.open_memory_channel[str | bytes](8)

    async def next_payload(self) -> str | bytes:
        return await self._take.receive()

    def close(self) -> None:
        self.put.close()


class Scripted:
    """A session that behaves as its device id says."""

    def __init__(self, behaviour: str) -> None:
        if behaviour == "raises-before":
            raise RuntimeError("a bug before the session")
        self._behaviour = behaviour
        self.outbox = Pipe()

    async def run(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        match self._behaviour:
            case "returns-at-once":
                return Closing(NORMAL, "returned")
            case "raises-after":
                raise RuntimeError("a bug in the session")
            case "busy":
                await trio.sleep(0.6)
        async with trio.open_nursery() as nursery:
            if self._behaviour == "flood":
                nursery.start_soon(self._flood)
            closing = await self._listen(receive)
            nursery.cancel_scope.cancel()
        return closing

    async def _flood(self) -> None:
        while True:
            await self.outbox.put.send(bytes(60_000))

    async def _listen(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        try:
            while True:
                message = await receive()
                if message == "bye":
                    return Closing(NORMAL, "goodbye")
                if self._behaviour == "echo":
                    await self.outbox.put.send(message)
        except trio.EndOfChannel:
            return PEER_GONE

    def end(self, closing: Closing) -> None:
        # Another row's session of the same behaviour is replaced; it ends with its peer.
        pass


# The server, and the device whose conversation must not suffer


@attrs.define
class Stage:
    """A gateway in a thread of its own, on which one device is being spoken to."""

    address: tuple[str, int]
    http_address: tuple[str, int]
    counters: Counters
    device: SimulatedDevice
    log: list[dict[str, Any]]

    @property
    def packets(self) -> int:
        return len(self.device.events)

    def longest_gap(self, first: int) -> float:
        """Seconds between two events of the device from this one on."""
        moments = [event.at for event in list(self.device.events)[first:]]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    @asynccontextmanager
    async def connect(self, *, http: bool = False) -> AsyncIterator[trio.SocketStream]:
        with trio.fail_after(8):
            address = self.http_address if http else self.address
            async with await trio.open_tcp_stream(*address) as stream:
                yield stream

    async def answer(self, *pieces: bytes, http: bool = False) -> bytes:
        """All that comes back until the server closes."""
        async with self.connect(http=http) as stream:
            for piece in pieces:
                await stream.send_all(piece)
            return await everything(stream)

    async def serves(self, *pieces: bytes) -> None:
        """These pieces, an upgrade, are answered 101, and what follows is echoed."""
        async with self.connect() as stream:
            for piece in pieces:
                await stream.send_all(piece)
            await stream.send_all(text(b"ping"))
            head, rest = await head_of(stream)
            assert head.startswith(b"HTTP/1.1 101 "), head
            for negotiated in (b"sec-websocket-protocol", b"sec-websocket-extensions"):
                assert negotiated not in head.lower()
            assert await exactly(stream, 6, rest) == b"\x81\x04ping"

    @asynccontextmanager
    async def session(self, behaviour: str = "echo") -> AsyncIterator[trio.SocketStream]:
        """A peer whose upgrade has been answered."""
        async with self.connect() as stream:
            await stream.send_all(upgrade(device=behaviour))
            head, rest = await head_of(stream)
            assert head.startswith(b"HTTP/1.1 101 "), head
            stream.rest = rest
            yield stream

    async def closing_of(self, behaviour: str, *pieces: bytes) -> tuple[int, str]:
        """How the server closes after these frames: by a close frame, and then the connection."""
        async with self.session(behaviour) as stream:
            for piece in pieces:
                await stream.send_all(piece)
            frame = await everything(stream, stream.rest)
        assert frame[:1] == b"\x88", frame
        assert len(frame) == 2 + frame[1]
        return int.from_bytes(frame[2:4]), frame[4:].decode()

    async def logged(self, event: str, **fields: Any) -> dict[str, Any]:
        """The last line of an event with these fields, as soon as there is one."""
        wanted = {"event": event, **fields}.items()
        await until(lambda: any(wanted <= line.items() for line in self.log))
        return next(line for line in reversed(self.log) if wanted <= line.items())

    def counted(self, name: str, **labels: str) -> int:
        wanted = tuple(sorted(labels.items()))
        counts = {(count.name, count.labels): count.value for count in self.counters.snapshot()}
        return counts.get((name, wanted), 0)


async def until(happened: Callable[[], bool]) -> None:
    """Look until it has happened, in another thread with a loop of its own."""
    with trio.fail_after(6):
        while True:
            if happened():
                return
            await trio.sleep(0.01)


async def perform(
    ready: Callable[[Any], None], ended: trio.Event, log: list[dict[str, Any]]
) -> None:
    """Run the gateway and the device until `ended`."""
    services = SessionServices(
        settings=Settings(),
        engines=EngineSet(
            vad=EngineSlot.of_ready(LoudnessDetector()),
            asr=EngineSlot.of_ready(ScriptedRecognizer()),
            llm=EngineSlot.of_ready(ScriptedLanguageModel(STORY)),
            tts=EngineSlot.of_ready(ScriptedSynthesizer(chunk_ms=120)),
        ),
        run_encoding=encoding_threads(),
        vision=lambda _: ("", ""),
    )
    hasty = attrs.evolve(services, settings=Settings(limits=LIMITS))

    def build(handshake: Handshake, session_id: str) -> Any:
        if handshake.device_id in BEHAVIOURS:
            return Scripted(handshake.device_id)
        return Session(handshake, session_id, hasty)

    counters = Counters()
    server = ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0, drain_seconds=1)
    gateway = Gateway(
        server=server,
        limits=LIMITS,
        authenticator=Authenticator(SIGNER, (*BEHAVIOURS, "talking", "real")),
        sessions=build,
        roster=Roster(),
        counters=counters,
        health=lambda: {"status": "ok"},
    )
    pages = HttpServices(
        settings=Settings(server=server, limits=LIMITS),
        tokens=SteadyTokens(SIGNER),
        websocket_port=lambda: address[1],
        health=gateway.health,
        counters=counters,
    )
    async with trio.open_nursery() as nursery:
        (address, *_) = await nursery.start(gateway.serve)
        serve_pages = partial(serve_http, build_app(pages), pages, shutdown=gateway.stopping)
        http_address = ("127.0.0.1", await nursery.start(serve_pages))
        url = f"ws://{address[0]}:{address[1]}{PATH}"
        async with dial(url, device_id="talking") as link, trio.open_nursery() as talk:
            device = SimulatedDevice(link)
            talk.start_soon(device.listen_to_server)
            with trio.fail_after(20):
                await device.hello()
                # In realtime mode the server goes on listening while it speaks.
                await device.listen("realtime")
                await device.detect("tell me a story")
                talk.start_soon(device.silence, 3600)
                await device.wait_for("audio", count=10)
            ready(Stage(address, http_address, counters, device, log))
            await ended.wait()
            talk.cancel_scope.cancel()
        gateway.stop()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """In a thread, so that it lives through all tests, each of which has a loop of its own."""
    log: list[dict[str, Any]] = []

    def keep(message: Any) -> None:
        record = message.record
        log.append({"event": record["message"], "level": record["level"].name, **record["extra"]})

    handler = logger.add(keep, level="INFO", format="{message}")
    began = threading.Event()
    found: list[Stage] = []
    token: list[trio.lowlevel.TrioToken] = []
    ended = trio.Event()

    def ready(made: Stage) -> None:
        found.append(made)
        token.append(trio.lowlevel.current_trio_token())
        began.set()

    def run() -> None:
        try:
            trio.run(perform, ready, ended, log)
        finally:
            began.set()

    # Where it hangs it must not keep the process.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    began.wait(30)
    yield found[0]
    token[0].run_sync_soon(ended.set)
    thread.join(20)
    logger.remove(handler)
    assert not thread.is_alive()


@asynccontextmanager
async def unhurt(stage: Stage) -> AsyncIterator[None]:
    """After the block the next client is served, and the device has missed nothing."""
    first, logged = stage.packets, len(stage.log)
    failures = stage.counted("connection_failures")
    yield
    await stage.serves(upgrade())
    end = stage.packets
    await until(lambda: stage.packets >= end + 2)
    assert stage.longest_gap(first) < LONGEST_GAP
    errors = [line for line in stage.log[logged:] if line["level"] == "ERROR"]
    assert len(errors) == stage.counted("connection_failures") - failures


# What peers send


def upgrade(*headers: str | bytes, device: str | None = "echo", target: str = PATH) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: example.org",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *([] if device is None else [f"Device-Id: {device}"]),
        *headers,
        "",
        "",
    ]
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)


def frame(first: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    if length < 126:
        return bytes([first, 0x80 | length]) + MASK + payload
    size = b"\xfe" + length.to_bytes(2) if length < 65_536 else b"\xff" + length.to_bytes(8)
    return bytes([first]) + size + MASK + payload


def text(payload: bytes) -> bytes:
    return frame(0x81, payload)


async def everything(stream: trio.abc.ReceiveStream, received: bytes = b"") -> bytes:
    pieces = [received]
    while data := await stream.receive_some():
        pieces.append(data)
    return b"".join(pieces)


async def head_of(stream: trio.abc.ReceiveStream) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        assert data, received
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


async def exactly(stream: trio.abc.ReceiveStream, count: int, received: bytes = b"") -> bytes:
    while len(received) < count:
        data = await stream.receive_some()
        assert data, received
        received += data
    return received


async def talk_on(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(b"anybody there?")
        await trio.sleep(0.05)


def reset(stream: trio.SocketStream) -> None:
    """Make the close at the end of the block a RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# The rows

Row: TypeAlias = "Callable[[Stage], Awaitable[None]]"
ROWS: dict[str, Row] = {}


def row(name: str) -> Callable[[Row], Row]:
    def enter(check: Row) -> Row:
        assert name not in ROWS
        ROWS[name] = check
        return check

    return enter


def answered(name: str, request: bytes, status: int, *, says: bytes = b"") -> None:
    """A row that is answered in HTTP, with the connection closed behind it."""

    async def check(stage: Stage) -> None:
        answer = await stage.answer(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert b"connection: close" in head.lower()
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert says in body

    row(name)(check)


def served(name: str, *pieces: bytes) -> None:
    """A row that is a good handshake: 101, nothing negotiated, and what it sends is echoed."""
    row(name)(lambda stage: stage.serves(*pieces))


def turned_away(name: str, first_bytes: bytes, reason: str) -> None:
    """A row that is no HTTP: closed, with a line that says what it is and what to do."""

    async def check(stage: Stage) -> None:
        assert await stage.answer(first_bytes) == b""
        line = await stage.logged("peer does not speak WebSocket", reason=reason)
        assert line["spoke"]
        assert line["fix"]
        assert stage.counted("strangers", reason=reason) > 0

    row(name)(check)


def broken(name: str, sent: bytes, code: int) -> None:
    """A row that breaks RFC 6455 in a session: the close frame that it asks for."""

    async def check(stage: Stage) -> None:
        assert (await stage.closing_of("echo", sent))[0] == code

    row(name)(check)


answered("GET /", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 200, says=b"Server is running")
answered("GET /health", b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", 200, says=b'"status":"ok"')
answered("POST / with body", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789", 405)
answered("HTTP/1.0 GET", b"GET / HTTP/1.0\r\n\r\n", 200)
turned_away("garbage", bytes(range(128, 256)), "not_http")


@row("TLS hello on plain port")
async def tls_on_plain_port(stage: Stage) -> None:
    before = stage.counted("strangers", reason="tls_on_plain_port")
    async with stage.connect() as stream:
        client = trio.SSLStream(stream, ssl.create_default_context(), server_hostname="h")
        with pytest.raises(trio.BrokenResourceError):
            await client.do_handshake()
    line = await stage.logged("peer does not speak WebSocket", reason="tls_on_plain_port")
    assert line["detail"] == "wss:// used on a ws:// port"
    assert stage.counted("strangers", reason="tls_on_plain_port") == before + 1


async def resets(stage: Stage, sent: bytes, times: int = 30) -> None:
    for _ in range(times):
        async with stage.connect() as stream:
            reset(stream)
            await stream.send_all(sent)


row("garbage, then RST (x30)")(lambda stage: resets(stage, b"\x80garbage\r\n\r\n"))
row("plain GET, then RST (x30)")(lambda stage: resets(stage, b"GET / HTTP/1.1\r\n\r\n"))


@row("connect + close (port probe x60)")
async def port_probe(stage: Stage) -> None:
    for _ in range(60):
        async with stage.connect():
            pass


served("Host: \\xff", upgrade().replace(b"example.org", b"\xff"))
served("Host: bad IDNA", upgrade().replace(b"example.org", b"xn--\x80"))
served("Connection: Upgrade,\\xff", upgrade().replace(b": Upgrade", b": Upgrade,\xff"))
served("Sec-WebSocket-Protocol non-ASCII", upgrade(b"Sec-WebSocket-Protocol: \xff, chat"))
served("Sec-WebSocket-Extensions non-ASCII", upgrade(b"Sec-WebSocket-Extensions: \xff"))
served("UTF-8 in an ordinary header", upgrade("X-Name: 小智"))
answered(
    "100 headers x 1000 B", upgrade(*(f"X-{n}: {'x' * 1000}" for n in range(100))), 431,
    says=b"larger than 16384 bytes",
)  # fmt: skip
answered("one 20 KiB header", upgrade("X: " + "x" * 20_480), 431, says=b"larger than 16384 bytes")
answered("silent", b"", 408, says=b"within 0.5 s")
answered("slow-loris, stalled", b"GET / HTTP/1.1\r\nX: ", 408, says=b"within 0.5 s")


@row("slow-loris")
async def slow_loris(stage: Stage) -> None:
    async with stage.connect() as stream, trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in upgrade():
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.05)

        nursery.start_soon(trickle)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
        nursery.cancel_scope.cancel()


answered(
    "no Sec-WebSocket-Key", upgrade().replace(f"Sec-WebSocket-Key: {KEY}\r\n".encode(), b""), 400,
    says=b"websocket_key_malformed",
)  # fmt: skip
answered('key "!!"', upgrade().replace(KEY.encode(), b"!!"), 400, says=b"websocket_key_malformed")


@row("version 8")
async def version_8(stage: Stage) -> None:
    answer = await stage.answer(upgrade().replace(b"Version: 13", b"Version: 8"))
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"Sec-WebSocket-Version: 13\r\n" in answer


@row("handler raises before accept")
async def raises_before(stage: Stage) -> None:
    failures = stage.counted("connection_failures")
    assert await stage.closing_of("raises-before") == (1011, "internal_error")
    assert stage.counted("connection_failures") == failures + 1


@row("handler returns before accept")
async def returns_at_once(stage: Stage) -> None:
    assert await stage.closing_of("returns-at-once") == (1000, "returned")


@row("handler raises after accept")
async def raises_after(stage: Stage) -> None:
    failures = stage.counted("connection_failures")
    began = trio.current_time()
    assert await stage.closing_of("raises-after") == (1011, "internal_error")
    assert trio.current_time() - began < 2
    assert stage.counted("connection_failures") == failures + 1


served("subprotocol chosen, not offered", upgrade())
served("subprotocol offered, none chosen", upgrade("Sec-WebSocket-Protocol: chat, xiaozhi"))
answered("reject 401 + body", upgrade(device="nobody"), 401, says=b"token_missing")
answered("reject 404 + body", upgrade(target="/wrong"), 404, says=PATH.encode())


@row("rejected client that keeps its socket open")
async def rejected_and_staying(stage: Stage) -> None:
    async with stage.connect() as stream:
        await stream.send_all(upgrade(device="nobody"))
        with trio.fail_after(3):
            await everything(stream)
        # It is the server that has closed: what is sent then is answered by a reset.
        with pytest.raises(trio.BrokenResourceError):
            await talk_on(stream)


@row("reject of a browser")
async def rejected_browser(stage: Stage) -> None:
    request = upgrade("Origin: http://x", device=None, target=f"{PATH}?device-id=nobody")
    head, _, frames = (await stage.answer(request)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    length = int.from_bytes(frames[2:4])
    assert json.loads(frames[4 : 4 + length])["type"] == "alert"
    assert frames[4 + length :] == b"\x88\x0f" + (1008).to_bytes(2) + b"token_missing"


TOO_LARGE = (1009, "message_too_large: at most 65536 bytes (limits.message_bytes)")


@row("message > max, whole")
async def large_message(stage: Stage) -> None:
    assert await stage.closing_of("echo", frame(0x82, bytes(65_537))) == TOO_LARGE


@row("message > max, in fragments")
async def large_fragments(stage: Stage) -> None:
    pieces = [frame(0x02, bytes(30_000)), frame(0x00, bytes(30_000)), frame(0x80, bytes(30_000))]
    assert await stage.closing_of("echo", *pieces) == TOO_LARGE
    line = await stage.logged("device disconnected", reason="message_too_large")
    assert line["fix"]
    assert stage.counted("sessions_ended", reason="message_too_large") > 0


@row("declared length 2**62")
async def declared_length(stage: Stage) -> None:
    began = trio.current_time()
    header = b"\x82\xff" + (2**62).to_bytes(8) + MASK
    assert await stage.closing_of("echo", header) == TOO_LARGE
    assert trio.current_time() - began < 2


broken("unmasked", b"\x81\x01x", 1002)
broken("bad opcode", frame(0x83), 1002)
broken("RSV", frame(0xC1, b"x"), 1002)
broken("bad UTF-8", text(b"\xff"), 1007)


@row("RST while idle")
async def reset_while_idle(stage: Stage) -> None:
    async with stage.session() as stream:
        reset(stream)
    await stage.logged("device disconnected", reason="peer_gone", peer_code=1006)


@row("RST in flight")
async def reset_in_flight(stage: Stage) -> None:
    for _ in range(10):
        async with stage.session() as stream:
            reset(stream)
            await stream.send_all(text(b"x" * 60_000) * 5 + text(b"half")[:7])


@row("RST in close handshake")
async def reset_in_close_handshake(stage: Stage) -> None:
    for sent in (frame(0x88, (1000).to_bytes(2)), text(b"bye")):
        for _ in range(5):
            async with stage.session() as stream:
                reset(stream)
                await stream.send_all(sent)


@row("ping flood")
async def ping_flood(stage: Stage) -> None:
    """As many as the limit allows are answered; more close the connection."""
    async with stage.session() as stream:
        await stream.send_all(PING * 5000)
        assert await exactly(stream, 5000 * 3, stream.rest) == PONG * 5000
    async with stage.session() as stream, trio.open_nursery() as nursery:

        async def flood() -> None:
            try:
                await stream.send_all(PING * 100_000)
            except trio.BrokenResourceError:
                return

        nursery.start_soon(flood)
        received = b""
        # Where so much is on its way, a reset may overtake the close frame.
        with contextlib.suppress(trio.BrokenResourceError):
            received = await everything(stream)
        nursery.cancel_scope.cancel()
    assert not received or b"too_many_messages: at most 1000 a second" in received
    await stage.logged("device disconnected", reason="too_many_messages")


@row("FIN without close")
async def fin_without_close(stage: Stage) -> None:
    async with stage.session() as stream:
        await stream.send_eof()
        assert await everything(stream, stream.rest) == b""
    await stage.logged("device disconnected", reason="peer_gone", peer_code=1006)


def pinged_while_busy(unread: int) -> None:
    async def check(stage: Stage) -> None:
        async with stage.session("busy") as stream:
            await stream.send_all(text(b"x") * unread + PING)
            with trio.fail_after(0.5):
                assert await exactly(stream, 3, stream.rest) == PONG

    row(f"handler busy, {unread} unread, ping")(check)


for _unread in (1, 3, 20):
    pinged_while_busy(_unread)


@row("handler busy, 3 unread, client RST")
async def reset_while_busy(stage: Stage) -> None:
    began = len(stage.log)
    async with stage.session("busy") as stream:
        await stream.send_all(text(b"x") * 3)
        reset(stream)
    await until(
        lambda: any(
            line["event"] == "device disconnected" and line["peer_code"] == 1006
            for line in stage.log[began:]
        )
    )


@row("client never reads, server floods")
async def client_never_reads(stage: Stage) -> None:
    before = stage.counted("sessions_ended", reason="peer_stalled")
    async with stage.session("flood"):
        await until(lambda: stage.counted("sessions_ended", reason="peer_stalled") > before)


@row("cancel a blocked send, send again")
async def blocked_send(stage: Stage) -> None:
    """After a send that was cut off nothing follows: whole frames, and one that just ends."""
    before = stage.counted("sessions_ended", reason="peer_stalled")
    async with stage.session("flood") as stream:
        await until(lambda: stage.counted("sessions_ended", reason="peer_stalled") > before)
        received = await everything(stream, stream.rest)
    whole = b"\x82\x7e" + (60_000).to_bytes(2) + bytes(60_000)
    count, cut = divmod(len(received), len(whole))
    assert count
    assert received == whole * count + whole[:cut]


@row("server aclose, client silent")
async def client_ignores_the_close(stage: Stage) -> None:
    async with stage.session() as stream:
        await stream.send_all(text(b"bye"))
        with trio.fail_after(3):
            received = await everything(stream, stream.rest)
        assert received == b"\x88\x09" + (1000).to_bytes(2) + b"goodbye"


@row("server ping, client silent")
async def client_is_silent(stage: Stage) -> None:
    """The server sends no pings; a device that never says anything is closed by its hello."""
    told = "hello_timeout: no hello within 0.5 s (limits.hello_seconds)"
    assert await stage.closing_of("real") == (1008, told)


@row("frame in the handshake packet")
async def frame_with_the_handshake(stage: Stage) -> None:
    async with stage.connect() as stream:
        await stream.send_all(upgrade() + text(b"one") + text(b"two")[:4])
        _, rest = await head_of(stream)
        assert await exactly(stream, 5, rest) == b"\x81\x03one"
        await stream.send_all(text(b"two")[4:])
        assert await exactly(stream, 5) == b"\x81\x03two"


served(
    "permessage-deflate offered",
    upgrade("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
)
turned_away("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_on_http1_port")
turned_away("PROXY v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + upgrade(), "proxy_header")
turned_away("PROXY v2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12), "proxy_header")
turned_away("RDP", bytes.fromhex("030000130ee000000000000100080003000000"), "rdp_scanner")
turned_away("SMB", b"\x00\x00\x00\x54\xffSMBr" + bytes(76), "smb_scanner")
turned_away("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client")
turned_away("MQTT", b"\x10\x1a\x00\x04MQTT\x04\x02\x00<" + bytes(14), "mqtt_client")


# The same on the HTTP port, where Hypercorn alone would end the process at some


def on_http(name: str, sent: bytes, status: int, reason: str = "") -> None:
    """A row that speaks HTTP: answered, and where it is refused, with the reason everywhere."""

    async def check(stage: Stage) -> None:
        before = stage.counted("handshakes_refused", reason=reason)
        head, _, body = (await stage.answer(sent, http=True)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        if not reason:
            return
        error = json.loads(body)
        assert error["error"] == reason
        line = await stage.logged("handshake refused", reason=reason, port="HTTP")
        assert line["fix"]
        # Our own address is in the one about the port.
        assert line["detail"] in error["message"]
        assert stage.counted("handshakes_refused", reason=reason) == before + 1

    row(f"HTTP port: {name}")(check)


def strange_on_http(name: str, first_bytes: bytes, reason: str) -> None:
    """A row that is no HTTP: closed, with a line that says what it is and what to do."""

    async def check(stage: Stage) -> None:
        before = stage.counted("strangers", reason=reason)
        assert await stage.answer(first_bytes, http=True) == b""
        line = await stage.logged("peer does not speak HTTP", reason=reason)
        assert line["spoke"]
        assert line["fix"]
        assert stage.counted("strangers", reason=reason) == before + 1

    row(f"HTTP port: {name}")(check)


async def resets_on_http(stage: Stage, sent: bytes) -> None:
    for _ in range(30):
        async with stage.connect(http=True) as stream:
            reset(stream)
            await stream.send_all(sent)


CLOSING = b"Host: h\r\nConnection: close\r\n"
on_http("GET /", b"GET / HTTP/1.1\r\n" + CLOSING + b"\r\n", 200)
on_http("POST / with body", b"POST / HTTP/1.1\r\nContent-Length: 1\r\n" + CLOSING + b"\r\n1", 405)
on_http("HTTP/1.0 GET", b"GET / HTTP/1.0\r\n\r\n", 200)
for _name, _request in {
    "an upgrade": upgrade(),
    "Connection: Upgrade,\\xff": upgrade().replace(b": Upgrade", b": Upgrade,\xff"),
    "Sec-WebSocket-Protocol non-ASCII": upgrade(b"Sec-WebSocket-Protocol: \xff, chat"),
    "Sec-WebSocket-Extensions non-ASCII": upgrade(b"Sec-WebSocket-Extensions: \xff"),
    "frame in the handshake packet": upgrade() + text(b"early"),
}.items():
    on_http(_name, _request, 404, "wrong_port")
on_http(
    "100 headers x 1000 B", upgrade(*(f"X-{n}: {'x' * 1000}" for n in range(100))), 431,
    "head_too_large",
)  # fmt: skip
on_http("silent", b"", 408, "silent_peer")
on_http("slow-loris, stalled", b"GET / HTTP/1.1\r\nX: ", 408, "handshake_timeout")
on_http("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "request_malformed")
strange_on_http("garbage", bytes(range(128, 256)), "not_http")
strange_on_http("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls_on_plain_port")
strange_on_http("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_on_http1_port")
strange_on_http("PROXY v1", b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n", "proxy_header")
strange_on_http("RDP", bytes.fromhex("030000130ee000000000000100080003000000"), "rdp_scanner")
strange_on_http("SMB", b"\x00\x00\x00\x54\xffSMBr" + bytes(76), "smb_scanner")
strange_on_http("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client")
strange_on_http("MQTT", b"\x10\x1a\x00\x04MQTT\x04\x02\x00<" + bytes(14), "mqtt_client")
row("HTTP port: connect + reset (x30)")(lambda stage: resets_on_http(stage, b""))
row("HTTP port: garbage, then RST (x30)")(lambda stage: resets_on_http(stage, b"\x80\r\n\r\n"))
row("HTTP port: GET, then RST (x30)")(
    lambda stage: resets_on_http(stage, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
)


# What hurts the reference server's own connection: the messages it dies of, and plain bugs


@asynccontextmanager
async def a_device(stage: Stage) -> AsyncIterator[SimulatedDevice]:
    """A device with a real session, that has not said hello yet."""
    url = f"ws://{stage.address[0]}:{stage.address[1]}{PATH}"
    async with dial(url, device_id="real") as link, trio.open_nursery() as nursery:
        device = SimulatedDevice(link)
        nursery.start_soon(device.listen_to_server)
        with trio.fail_after(8):
            yield device
        nursery.cancel_scope.cancel()


def ignored(name: str, message: str | bytes) -> None:
    """A row that is no message: before the hello and after it, the session goes on without it."""

    async def check(stage: Stage) -> None:
        async with a_device(stage) as device:
            await device.send_raw(message)
            await device.hello()
            await device.send_raw(message)
            await device.detect("still there?")
            await device.wait_for("audio", count=3)
            assert device.kinds[:3] == ["hello", "stt", "tts start"]

    row(name)(check)


ignored("listen without a state", '{"type":"listen"}')
ignored("listen with a text that is none", '{"type":"listen","state":"detect","text":1}')
ignored("mcp before hello and without features.mcp", '{"type":"mcp","payload":{}}')
ignored("type that is a list", '{"type":[]}')
ignored("server with content that is no object", '{"type":"server","content":"x"}')
ignored("JSON that is no object", "[]")
ignored("JSON that is broken", '{"type":"listen","state":"detect","text":"say "hi""}')
ignored("JSON that is nested too deep", '{"type":"mcp","payload":' + "[" * 20_000 + "]" * 20_000)
ignored("audio of one byte", b"\x00")


@row("hello with audio_params that are none")
async def malformed_hello(stage: Stage) -> None:
    """Told and closed: a client that waits for the answer to its hello must not wait in vain."""
    async with stage.session("real") as stream:
        await stream.send_all(text(b'{"type":"hello","audio_params":"x"}'))
        received = await everything(stream, stream.rest)
    assert b'"type":"alert"' in received
    assert received.endswith(b"\x88\x11" + (1008).to_bytes(2) + b"hello_malformed")


served("Connection of Firefox and of proxies", upgrade().replace(b": Upgrade", b": x, Upgrade"))
served("header sent twice", upgrade("device-id: other", "Connection: keep-alive"))


@row("late answer of the device's MCP server")
async def late_mcp_answer(stage: Stage) -> None:
    """It means nothing: ids are never used twice, so that no tools are asked for again."""
    initialized = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {}}
    results = {1: initialized, 2: {"tools": []}}
    async with a_device(stage) as device:
        await device.hello(features={"mcp": True})
        for request, sent in ((1, 1), (2, 3), (1, 3), (2, 3)):
            await device.wait_for("mcp", count=sent)
            reply = {"jsonrpc": "2.0", "id": request, "result": results[request]}
            await device.send_json(type="mcp", payload=reply)
        await device.detect("still there?")
        await device.wait_for("audio", count=3)
        methods = [event.body["payload"]["method"] for event in device.of_kind("mcp")]
        assert methods == ["initialize", "notifications/initialized", "tools/list"]


@pytest.mark.parametrize("name", ROWS)
async def test_row(stage: Stage, name: str) -> None:
    async with unhurt(stage):
        await ROWS[name](stage)
