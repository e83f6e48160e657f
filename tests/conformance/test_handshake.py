"""Conformance 27-35 and 41: what a client sees of the doorway, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.wire.closing import PEER_GONE, POLICY_VIOLATION, Closing
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from xiaozhi_trio.wire.handshake import Handshake

pytestmark = pytest.mark.sockets

PATH = "/xiaozhi/v1/"
MAC = "aa:bb:cc:dd:ee:ff"
DEVICE = f"Device-Id: {MAC}"
NOW = 1_800_000_000
SIGNER = TokenSigner(secret="s" * 32, lifetime_seconds=3600, clock=lambda: NOW)
CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(200)


class EchoOutbox:
    def __init__(self) -> None:
        self.put, self.take = trio.open_memory_channel[str | bytes](8)

    async def next_payload(self) -> str | bytes:
        return await self.take.receive()

    def close(self) -> None:
        self.put.close()


class EchoSession:
    """Echoes; `hello_seconds` without a first message end it, as a real session's hello does."""

    def __init__(self, handshake: Handshake, *, hello_seconds: float) -> None:
        self.handshake = handshake
        self.outbox = EchoOutbox()
        self._hello_seconds = hello_seconds

    async def run(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        try:
            with trio.fail_after(self._hello_seconds):
                message = await receive()
            while True:
                await self.outbox.put.send(message)
                message = await receive()
        except trio.EndOfChannel:
            return PEER_GONE
        except trio.TooSlowError:
            return Closing(POLICY_VIOLATION, "hello_timeout")

    def end(self, closing: Closing) -> None:
        raise AssertionError(closing)


@attrs.define
class Server:
    """A running gateway, its log and its sessions."""

    address: tuple[str, int]
    counters: Counters
    log: list[dict[str, Any]]
    sessions: list[EchoSession]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[trio.SocketStream]:
        with trio.fail_after(8):
            async with await trio.open_tcp_stream(*self.address) as stream:
                yield stream

    async def answer(self, *pieces: bytes) -> bytes:
        """All that comes back until the server closes."""
        async with self.connect() as stream:
            for piece in pieces:
                await stream.send_all(piece)
            return await everything(stream)

    async def accepts(self, request: bytes) -> Handshake:
        """The handshake that the server understood; it answered 101 and echoes."""
        async with self.connect() as stream:
            await stream.send_all(request + masked(b"ping"))
            head, rest = await head_of(stream)
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert await exactly(stream, 6, rest) == b"\x81\x04ping"
            return self.sessions[-1].handshake

    async def is_unhurt(self) -> None:
        """The next client is served."""
        await self.accepts(upgrade(DEVICE))

    def line(self, message: str, **fields: Any) -> dict[str, Any]:
        """The one log line with these fields."""
        matching = [
            line
            for line in self.log
            if line["message"] == message and fields.items() <= line.items()
        ]
        assert len(matching) == 1, self.log
        return matching[0]


def upgrade(*headers: str | bytes, target: str = PATH, connection: str = "Upgrade") -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: example.org",
        f"Connection: {connection}",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return b"\r\n".join(
        line if isinstance(line, bytes) else line.encode() for line in (*lines, "", "")
    )


def masked(text: bytes) -> bytes:
    """A text frame of a client."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


async def everything(stream: trio.abc.ReceiveStream, received: bytes = b"") -> bytes:
    while data := await stream.receive_some():
        received += data
    return received


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


def refusal_of(answer: bytes) -> tuple[int, dict[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def alert_of(answer: bytes) -> tuple[dict[str, str], int, str]:
    """The one text frame behind a 101, and the close frame."""
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames[:2] == b"\x81\x7e"
    (length,) = struct.unpack(">H", frames[2:4])
    close = frames[4 + length :]
    assert close[0] == 0x88
    assert len(close) == 2 + close[1]
    return json.loads(frames[4 : 4 + length]), int.from_bytes(close[2:4]), close[4:].decode()


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []

    def keep(message: Any) -> None:
        record = message.record
        level, extra = record["level"].name, record["extra"]
        text = f"{record['message']} {extra} {record['exception']}"
        records.append({"message": record["message"], "level": level, "text": text, **extra})

    handler = logger.add(keep, level="DEBUG", format="{message}")
    yield records
    logger.remove(handler)


@pytest.fixture
def start(nursery: trio.Nursery, log: list[dict[str, Any]]) -> StartServer:
    async def start(
        *, with_tokens: bool = False, allowed: tuple[str, ...] = (), **limits: Any
    ) -> Server:
        limit = LimitSettings(**limits)
        counters = Counters()
        sessions: list[EchoSession] = []

        def build(handshake: Handshake, session_id: str) -> EchoSession:
            sessions.append(EchoSession(handshake, hello_seconds=limit.hello_seconds))
            return sessions[-1]

        gateway = Gateway(
            server=ServerSettings(host="127.0.0.1", websocket_port=0),
            limits=limit,
            authenticator=Authenticator(SIGNER if with_tokens else None, allowed),
            sessions=build,
            roster=Roster(),
            counters=counters,
            health=lambda: {"status": "ok"},
        )
        addresses: list[tuple[str, int]] = await nursery.start(gateway.serve)
        return Server(addresses[0], counters, log, sessions)

    return start


# 27


async def test_027_valid_token_gets_101_with_the_right_accept(start: StartServer) -> None:
    server = await start(with_tokens=True)
    token = SIGNER.issue("c", MAC)
    request = upgrade(DEVICE, "Client-Id: c", f"Authorization: Bearer {token}")
    async with server.connect() as stream:
        await stream.send_all(request)
        head, _ = await head_of(stream)
    key = b"dGhlIHNhbXBsZSBub25jZQ==" + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: " + accept in head
    assert b"extensions" not in head.lower()
    assert server.line("device connected", device=MAC)["level"] == "INFO"


async def test_027_query_only_page_gets_101(start: StartServer) -> None:
    """The failure that this project was created for: a page has nothing but its query."""
    server = await start()
    handshake = await server.accepts(
        upgrade(
            "Origin: http://127.0.0.1:8006", target=f"{PATH}?device-id={MAC}&client-id=web_test"
        )
    )
    assert (handshake.device_id, handshake.client_id) == (MAC, "web_test")
    assert handshake.from_browser


async def test_027_query_only_client_without_origin_gets_101(start: StartServer) -> None:
    server = await start()
    handshake = await server.accepts(upgrade(target=f"{PATH}?device-id={MAC}&client-id=x"))
    assert handshake.device_id == MAC


async def test_027_page_with_a_token_in_its_query(start: StartServer) -> None:
    server = await start(with_tokens=True)
    token = SIGNER.issue("web", MAC.upper())
    target = f"{PATH}?authorization=Bearer%20{token}&device-id={MAC.upper()}&client-id=web"
    assert (await server.accepts(upgrade(target=target))).token == token


async def test_027_frame_in_the_packet_of_the_handshake_is_delivered(start: StartServer) -> None:
    server = await start()
    async with server.connect() as stream:
        await stream.send_all(upgrade(DEVICE) + masked(b"one") + masked(b"two")[:4])
        _, rest = await head_of(stream)
        assert await exactly(stream, 5, rest) == b"\x81\x03one"
        await stream.send_all(masked(b"two")[4:])
        assert await exactly(stream, 5) == b"\x81\x03two"


# 28


def at(seconds: float) -> str:
    return attrs.evolve(SIGNER, clock=lambda: NOW + seconds).issue("c", MAC)


BAD_TOKENS = [
    pytest.param("", "token_missing", id="missing"),
    pytest.param("x", "token_malformed", id="malformed"),
    pytest.param("A" * 43 + ".1", "token_signature", id="forged"),
    pytest.param(SIGNER.issue("other", MAC), "token_signature", id="other client"),
    pytest.param(at(-3700), "token_expired", id="expired"),
    pytest.param(at(301), "token_from_future", id="future"),
]


@pytest.mark.parametrize(("token", "reason"), BAD_TOKENS)
async def test_028_device_is_refused_before_the_upgrade(
    start: StartServer, token: str, reason: str
) -> None:
    server = await start(with_tokens=True, allowed=("11-22-33-44-55-66",))
    answer = await server.answer(upgrade(DEVICE, "Client-Id: c", f"Authorization: Bearer {token}"))
    status, body = refusal_of(answer)
    assert status == 401
    assert body["error"] == "unauthorized"
    assert body["reason"] == reason
    assert body["message"].startswith("认证失败：")
    line = server.line("handshake refused", reason=reason, status=401)
    assert line["detail"] in body["message"]
    assert line["fix"]
    if len(token) > 1:
        assert not any(token in line["text"] for line in server.log)
        assert token not in answer.decode()
    await server.accepts(upgrade("Device-Id: 112233445566"))


@pytest.mark.parametrize(("token", "reason"), BAD_TOKENS)
async def test_028_browser_is_let_in_told_and_closed(
    start: StartServer, token: str, reason: str
) -> None:
    server = await start(with_tokens=True)
    target = f"{PATH}?device-id={MAC}&client-id=c&authorization=Bearer%20{token}"
    async with server.connect() as stream:
        await stream.send_all(upgrade("Origin: http://x", target=target) + masked(b"{}"))
        with trio.fail_after(2):
            alert, code, close_reason = alert_of(await everything(stream))
    assert {**alert, "message": ""} == {
        "type": "alert",
        "status": "认证失败",
        "message": "",
        "emotion": "sad",
    }
    assert (code, close_reason) == (1008, reason)
    assert server.line("handshake refused", reason=reason)["detail"] in alert["message"]
    if len(token) > 1:
        assert not any(token in line["text"] for line in server.log)
    assert not server.sessions


# 29


@pytest.mark.parametrize("form", ["Bearer  {}", "bearer {}", "BEARER\t{}", "{}", "Bearer {} "])
async def test_029_forms_of_a_valid_token(start: StartServer, form: str) -> None:
    server = await start(with_tokens=True)
    value = form.format(SIGNER.issue("c", MAC))
    await server.accepts(upgrade(DEVICE, "Client-Id: c", f"Authorization: {value}"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [("Bearer", "token_missing"), ("", "token_missing"), ("raw token", "token_malformed")],
)
async def test_029_forms_without_one(start: StartServer, value: str, reason: str) -> None:
    server = await start(with_tokens=True)
    _, body = refusal_of(await server.answer(upgrade(DEVICE, f"Authorization: {value}")))
    assert body["reason"] == reason


async def test_029_any_form_will_do_without_authentication(start: StartServer) -> None:
    server = await start()
    for value in ("Bearer", "", "raw token", "Bearer x"):
        await server.accepts(upgrade(DEVICE, f"Authorization: {value}"))


# 30, 31


@pytest.mark.parametrize(
    "old_new",
    [
        (b"Host: example.org", b"Host: example.org:8000"),
        (b"Host: example.org\r\n", b""),
        (b"Host: example.org", b"Host: \xff"),
        (b"Host: example.org", b"hOST: xn--\x80"),
        (b"Upgrade: websocket", b"UPGRADE: WebSocket"),
        (b"Sec-WebSocket-Key", b"sec-websocket-KEY"),
        (b"Device-Id", b"DEVICE-id"),
        (b"Device-Id", b"X-Unknown: \xe5\xb0\x8f\xff\r\nDevice-Id"),
        (b"Device-Id", b"Sec-WebSocket-Protocol: \xff, x\r\nDevice-Id"),
        (b"Device-Id", b"Sec-WebSocket-Extensions: \xff\r\nDevice-Id"),
        (b"Connection: Upgrade", b"Connection: Upgrade,\xff"),
        (PATH.encode(), PATH.encode() + b"?\xff=%ff"),
    ],
)
async def test_030_unusual_heads_are_accepted(
    start: StartServer, old_new: tuple[bytes, bytes]
) -> None:
    server = await start()
    await server.accepts(upgrade(DEVICE).replace(*old_new))
    assert not [line for line in server.log if line["level"] == "ERROR"]


async def test_031_client_id_and_version_may_be_missing(start: StartServer) -> None:
    server = await start()
    handshake = await server.accepts(upgrade(DEVICE))
    assert (handshake.client_id, handshake.protocol_version) == ("", 1)


# 32


@pytest.mark.parametrize("target", ["/", "/xiaozhi/v2/", "/xiaozhi/v1/x", "//xiaozhi/v1/"])
async def test_032_wrong_path_is_told_the_right_one(start: StartServer, target: str) -> None:
    server = await start()
    status, body = refusal_of(await server.answer(upgrade(DEVICE, target=target)))
    assert (status, body["reason"]) == (404, "wrong_path")
    assert PATH in body["message"]
    server.line("handshake refused", reason="wrong_path")


async def test_032_slash_at_the_end_does_not_matter(start: StartServer) -> None:
    server = await start()
    await server.accepts(upgrade(DEVICE, target="/xiaozhi/v1"))
    await server.accepts(upgrade(target=f"/xiaozhi/v1?device-id={MAC}"))


@pytest.mark.parametrize("target", ["/", PATH, "http://proxy/"])
async def test_032_plain_get_says_how_to_connect(start: StartServer, target: str) -> None:
    server = await start()
    answer = await server.answer(f"GET {target} HTTP/1.1\r\nHost: h:8000\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/plain" in head
    assert body.startswith(b"Server is running")
    assert b"ws://h:8000/xiaozhi/v1/" in body


async def test_032_health_is_json(start: StartServer) -> None:
    server = await start()
    answer = await server.answer(b"GET /health HTTP/1.0\r\n\r\n")
    assert b"application/json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"status": "ok"}


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"200"),
        (b"OPTIONS / HTTP/1.1\r\n\r\n", b"204"),
        (b"POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000), b"405"),
        (b"DELETE /x HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /xiaozhi/ota/ HTTP/1.1\r\n\r\n", b"404"),
        (b"GET / HTTP/3.0\r\n\r\n", b"505"),
        (b"GET nothing\r\n\r\n", b"400"),
    ],
)
async def test_032_every_request_is_answered(
    start: StartServer, request_head: bytes, status: bytes
) -> None:
    server = await start()
    answer = await server.answer(request_head)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"Connection: close" in head
    if status == b"204" or request_head.startswith(b"HEAD"):
        assert body == b""
    await server.is_unhurt()


@pytest.mark.parametrize(
    ("old_new", "status", "reason"),
    [
        ((b"Version: 13", b"Version: 8"), 426, "websocket_version"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"!!"), 400, "websocket_key_malformed"),
        ((b"Upgrade: websocket\r\n", b""), 400, "upgrade_headers_missing"),
        ((b"GET", b"POST"), 405, "wrong_method"),
    ],
)
async def test_032_upgrades_that_cannot_be(
    start: StartServer, old_new: tuple[bytes, bytes], status: int, reason: str
) -> None:
    server = await start()
    answer = await server.answer(upgrade(DEVICE).replace(*old_new))
    got, body = refusal_of(answer)
    assert (got, body["reason"]) == (status, reason)
    if status == 426:
        assert b"Sec-WebSocket-Version: 13\r\n" in answer
    server.line("handshake refused", reason=reason)
    await server.is_unhurt()


@pytest.mark.parametrize(
    "connection",
    ["keep-alive, Upgrade", "Upgrade, keep-alive", "upgrade", "KEEP-ALIVE,UPGRADE",
     "keep-alive\r\nConnection: Upgrade"],
)  # fmt: skip
async def test_032a_connection_lists(start: StartServer, connection: str) -> None:
    server = await start()
    await server.accepts(upgrade(DEVICE, connection=connection))


async def test_032b_headers_win_the_query_fills_gaps_the_first_counts(start: StartServer) -> None:
    server = await start()
    handshake = await server.accepts(
        upgrade(
            DEVICE,
            "device-id: 11:22:33:44:55:66",
            target=f"{PATH}?device-id=other&client-id=one&client-id=two",
        )
    )
    assert (handshake.device_id, handshake.client_id) == (MAC, "one")
    notes = server.line("device connected")["notes"]
    assert "repeated header device-id, the first counts" in notes
    assert "repeated query parameter client-id, the first counts" in notes


async def test_032c_no_device_id_is_refused_like_a_bad_token(start: StartServer) -> None:
    server = await start()
    status, body = refusal_of(await server.answer(upgrade()))
    assert (status, body["error"], body["reason"]) == (400, "unauthorized", "device_id_missing")
    for request in (upgrade("Origin: http://x"), upgrade(target=f"{PATH}?client-id=x")):
        alert, code, reason = alert_of(await server.answer(request))
        assert (alert["status"], code, reason) == ("认证失败", 1008, "device_id_missing")
    counts = {count.name: count.value for count in server.counters.snapshot()}
    assert counts["handshakes_refused"] == 3
    # All came from one address, for one reason, within a minute.
    server.line("handshake refused", reason="device_id_missing")
    await server.is_unhurt()


async def test_032c_malformed_device_id_never_reaches_the_log(start: StartServer) -> None:
    server = await start()
    evil = "../../etc/passwd\x1b[31m"
    status, body = refusal_of(await server.answer(upgrade(f"Device-Id: {evil}")))
    assert (status, body["reason"]) == (400, "device_id_malformed")
    assert not any("passwd" in line["text"] for line in server.log)


@pytest.mark.parametrize(
    ("first_bytes", "reason"),
    [
        (CLIENT_HELLO, "tls_on_plain_port"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_on_http1_port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + upgrade(DEVICE), "proxy_header"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12), "proxy_header"),
        (bytes.fromhex("030000130ee000000000000100080003000000"), "rdp_scanner"),
        (b"\x00\x00\x00\x54\xffSMBr" + bytes(76), "smb_scanner"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client"),
        (b"\x10\x1a\x00\x04MQTT\x04\x02\x00<" + bytes(14), "mqtt_client"),
        (bytes(range(128, 256)), "not_http"),
        (b"\x05\x01\x00", "not_http"),
    ],
)
async def test_032d_other_protocols_get_one_line_and_the_door(
    start: StartServer, first_bytes: bytes, reason: str
) -> None:
    server = await start()
    assert await server.answer(first_bytes) == b""
    line = server.line("peer does not speak WebSocket", reason=reason)
    assert line["spoke"]
    assert line["fix"]
    assert line["peer"].startswith("127.0.0.1:")
    if reason == "tls_on_plain_port":
        assert line["detail"] == "wss:// used on a ws:// port"
    await server.is_unhurt()


async def test_032d_resets_and_probes_hurt_nobody(start: StartServer) -> None:
    server = await start()
    for request in (b"", b"garbage\x00", b"GET / HTTP/1.1\r\n\r\n", upgrade(DEVICE)):
        for _ in range(5):
            async with server.connect() as stream:
                linger = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await stream.send_all(request)
    await server.is_unhurt()
    assert not [line for line in server.log if line["level"] == "ERROR"]


# 33 - 35


@pytest.mark.parametrize(
    ("sent", "reason"), [(b"", "silent_peer"), (b"GET / HTTP/1.1\r\nA: b", "handshake_timeout")]
)
async def test_033_slow_handshake_is_timed_out(
    start: StartServer, sent: bytes, reason: str
) -> None:
    server = await start(handshake_seconds=0.1)
    answer = await server.answer(sent)
    assert answer.startswith(b"HTTP/1.1 408 ")
    server.line("handshake refused", reason=reason)
    await server.is_unhurt()


async def test_034_compression_is_not_negotiated(start: StartServer) -> None:
    server = await start()
    async with server.connect() as stream:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        await stream.send_all(upgrade(DEVICE, offer) + masked(b"x"))
        head, rest = await head_of(stream)
        assert b"extensions" not in head.lower()
        assert await exactly(stream, 3, rest) == b"\x81\x01x"


@pytest.mark.parametrize(
    "request_head",
    [
        upgrade(DEVICE, "X-Large: " + "x" * 20_000),
        upgrade(DEVICE, *(f"X-{n}: {'x' * 1000}" for n in range(100))),
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,
    ],
)
async def test_035_oversized_head_is_told_so(start: StartServer, request_head: bytes) -> None:
    server = await start()
    status, body = refusal_of(await server.answer(request_head))
    assert (status, body["reason"]) == (431, "head_too_large")
    server.line("handshake refused", reason="head_too_large")
    await server.is_unhurt()


# 41


async def test_041_device_without_a_hello_is_closed(start: StartServer) -> None:
    server = await start(hello_seconds=0.1)
    async with server.connect() as stream:
        await stream.send_all(upgrade(DEVICE))
        _, rest = await head_of(stream)
        with trio.fail_after(2):
            frame = await everything(stream, rest)
    assert frame == b"\x88\x0f" + (1008).to_bytes(2) + b"hello_timeout"
    server.line("device disconnected", reason="hello_timeout", code=1008)
    await server.is_unhurt()
