"""Cases of RFC 6455, byte for byte, and the peer that tries them on a server that echoes.

Usage: rfc6455.py (writes the table of docs/rfc6455.md anew)

A case says what is sent and what the RFC wants to come back. An outcome is a line of
words: what came back, then `open` where the connection still echoes, or `end` where the
server hung up.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parents[1] / "docs" / "rfc6455.md"
MESSAGE_BYTES: Final = 262_144
"""The server's limit of a message: its default."""
SECONDS: Final = 5.0

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION: Final = 0x0
NAMES: Final = {TEXT: "text", BINARY: "binary", PING: "ping", PONG: "pong"}
MASK: Final = b"\x37\xfa\x21\x3d"
PROBE: Final = b"still there?"
SHOWN_BYTES: Final = 20
OPEN: Final = "open"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
    declared: int | None = None,
) -> bytes:
    """One frame of a client; `length_bytes` and `declared` make the length lie or sprawl."""
    size = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | reserved << 4 | opcode, (mask is not None) << 7 | short])
    head += size.to_bytes(length_bytes) if length_bytes else b""
    if mask is None:
        return head + payload
    pad = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(pad[: len(payload)])
    return head + mask + masked.to_bytes(len(payload))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


def fragments(opcode: int, *parts: bytes) -> tuple[bytes, ...]:
    """One message in frames."""
    return tuple(
        frame(CONTINUATION if number else opcode, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


def described(opcode: int, payload: bytes) -> str:
    """A frame of the server in words."""
    if opcode == CLOSE:
        if len(payload) < 2:
            return "close without a code"
        return f"close {int.from_bytes(payload[:2])}"
    name = NAMES.get(opcode, f"frame {opcode}")
    if len(payload) > SHOWN_BYTES:
        return f"{name} of {len(payload)} bytes"
    if not payload:
        return f"{name} empty"
    text = payload.decode(errors="replace")
    shown = text if opcode != BINARY and text.isprintable() else f"0x{payload.hex()}"
    return f"{name} {shown}"


def echo(opcode: int, payload: bytes) -> str:
    return f"{described(opcode, payload)}, {OPEN}"


def closed(code: int) -> str:
    return f"close {code}, end"


@attrs.frozen
class Case:
    """Something a client may do."""

    section: str
    does: str
    sends: tuple[bytes, ...]
    """After the upgrade, in one piece each."""
    wants: str
    """The outcome by the RFC."""
    ours: str = ""
    """The outcome where it differs."""
    why: str = ""
    """The reason why it differs."""
    probes: bool = True
    """Whether a message follows that shows whether the connection still echoes."""
    opening: bytes = b""
    """The request, where it is what the case is about; the status is part of the outcome then."""

    @property
    def expected(self) -> str:
        return self.ours or self.wants


HEADERS: Final = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What answers that key, by the example of the RFC."""


def request(line: str = "GET /?device-id=rfc6455 HTTP/1.1", **changes: str | None) -> bytes:
    """An upgrade with headers changed, by their names with underscores; None removes one."""
    headers: dict[str, str | None] = {**HEADERS}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode()


def handshakes() -> Iterator[Case]:
    def case(does: str, wants: str, opening: bytes, ours: str = "", why: str = "") -> Case:
        return Case("4.2.1", does, (), wants, ours=ours, why=why, opening=opening)

    def refused(does: str, status: int, opening: bytes) -> Case:
        return case(does, f"status {status}, end", opening)

    welcome = f"status 101, {OPEN}"
    spelt = request(Connection=None, connection="keep-alive, UPGRADE", Upgrade="WebSocket")
    yield case("the upgrade in other letters, among other words", welcome, spelt)
    yield case(
        "an extension that is not known",
        welcome,
        request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits, x-none"),
    )
    yield case("subprotocols", welcome, request(Sec_WebSocket_Protocol="chat, superchat"))
    yield case(
        "a message in one piece with the upgrade",
        f"status 101, text early, {OPEN}",
        request() + frame(TEXT, b"early"),
    )
    yield refused("POST", 405, request("POST /?device-id=rfc6455 HTTP/1.1"))
    yield refused("a path that is not there", 404, request("GET /chat HTTP/1.1"))
    yield refused("no Connection", 400, request(Connection=None))
    yield refused("no Upgrade", 400, request(Upgrade=None))
    yield refused("an Upgrade to something else", 400, request(Upgrade="h2c"))
    yield refused("no key", 400, request(Sec_WebSocket_Key=None))
    yield refused("a key of 15 bytes", 400, request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j"))
    yield refused("version 8", 426, request(Sec_WebSocket_Version="8"))
    yield refused("no version", 426, request(Sec_WebSocket_Version=None))
    yield case(
        "no Host",
        "status 400, end",
        request(Host=None),
        ours=welcome,
        why="the address it was reached by is of no use to a server with one site, and clients "
        "that leave it out can be served",
    )
    yield case(
        "HTTP/1.0",
        "status 400, end",
        request("GET /?device-id=rfc6455 HTTP/1.0"),
        ours=welcome,
        why="reverse proxies that pass the upgrade on and lower the version are still common",
    )


def framing() -> Iterator[Case]:
    for kind in (TEXT, BINARY):
        for size in (0, 1, 125, 126, 127, 65_535, 65_536):
            payload = b"*" * size
            yield Case(
                "5.2",
                f"{NAMES[kind]} of {size} bytes",
                (frame(kind, payload),),
                echo(kind, payload),
            )
    hello = frame(TEXT, b"hello")
    single = tuple(hello[at : at + 1] for at in range(len(hello)))
    yield Case("5.2", "a frame byte by byte", single, echo(TEXT, b"hello"))
    two = (hello + frame(TEXT, b"again"),)
    yield Case("5.2", "two frames in one piece", two, f"text hello, {echo(TEXT, b'again')}")
    zeros = (frame(TEXT, b"hello", mask=bytes(4)),)
    yield Case("5.3", "masked with zeros", zeros, echo(TEXT, b"hello"))
    for kind, name in (*NAMES.items(), (CLOSE, "close")):
        yield Case("5.1", f"unmasked {name}", (frame(kind, mask=None),), closed(1002))
    for length_bytes, size in ((2, 125), (8, 125), (8, 65_535)):
        sprawling = (frame(BINARY, bytes(size), length_bytes=length_bytes),)
        does = f"{size} bytes with a length of {length_bytes} bytes"
        yield Case("5.2", does, sprawling, closed(1002))
    negative = (frame(BINARY, length_bytes=8, declared=2**63),)
    yield Case(
        "5.2",
        "a length with its highest bit set",
        negative,
        closed(1002),
        ours=closed(1009),
        why="the limit on a message is held before anything else is looked at",
    )


def reserved() -> Iterator[Case]:
    for bits in range(1, 8):
        sends = (frame(TEXT, b"x", reserved=bits),)
        yield Case("5.2", f"reserved bits {bits:03b} on text", sends, closed(1002))
    for kind, name in ((PING, "ping"), (CLOSE, "close"), (BINARY, "binary")):
        sends = (frame(kind, reserved=0b100),)
        yield Case("5.2", f"reserved bit on {name}", sends, closed(1002))
    sends = (
        frame(TEXT, b"a", fin=False),
        frame(CONTINUATION, b"b", reserved=0b100),
    )
    yield Case("5.2", "reserved bit on a continuation", sends, closed(1002))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        sends = (frame(opcode, b"x"),)
        yield Case("5.2", f"reserved opcode {opcode}", sends, closed(1002))


def pings() -> Iterator[Case]:
    for payload in (b"", b"hello", b"\x00\xff\xfe" * 41 + b"ab"):
        sends = (frame(PING, payload),)
        yield Case("5.5.2", f"ping of {len(payload)} bytes", sends, echo(PONG, payload))
    yield Case("5.5", "ping of 126 bytes", (frame(PING, bytes(126)),), closed(1002))
    yield Case("5.5", "ping in fragments", (frame(PING, b"x", fin=False),), closed(1002))
    for payload in (b"", b"hello"):
        sends = (frame(PONG, payload),)
        yield Case("5.5.3", f"pong of {len(payload)} bytes that nobody asked for", sends, OPEN)
    yield Case("5.5", "pong of 126 bytes", (frame(PONG, bytes(126)),), closed(1002))
    both = (frame(PONG, b"no") + frame(PING, b"yes"),)
    yield Case("5.5.2", "pong and ping in one piece", both, echo(PONG, b"yes"))
    ten = (b"".join(frame(PING, b"%d" % number) for number in range(10)),)
    pongs = ", ".join(f"pong {number}" for number in range(10))
    yield Case("5.5.2", "ten pings in one piece", ten, f"{pongs}, {OPEN}")


def fragmentation() -> Iterator[Case]:
    yield Case("5.4", "text in two fragments", fragments(TEXT, b"ab", b"cd"), echo(TEXT, b"abcd"))
    binary = fragments(BINARY, b"\x01", b"\x02", b"\x03")
    yield Case("5.4", "binary in three fragments", binary, echo(BINARY, b"\x01\x02\x03"))
    empty = fragments(TEXT, b"", b"", b"")
    yield Case("5.4", "three fragments that are empty", empty, echo(TEXT, b""))
    around = fragments(TEXT, b"", b"abc", b"")
    yield Case("5.4", "empty fragments around a full one", around, echo(TEXT, b"abc"))
    thousand = (b"".join(fragments(TEXT, *[b"*"] * 1000)),)
    yield Case("5.4", "a thousand fragments", thousand, echo(TEXT, b"*" * 1000))
    start, rest = fragments(TEXT, b"ab", b"cd")
    pinged = (start, frame(PING, b"p"), rest)
    yield Case("5.4", "ping between fragments", pinged, f"pong p, {echo(TEXT, b'abcd')}")
    ponged = (start, frame(PONG, b"p"), rest)
    yield Case("5.4", "pong between fragments", ponged, echo(TEXT, b"abcd"))
    yield Case("5.4", "close between fragments", (start, close_frame(1000)), closed(1000))
    for fin in (True, False):
        sends = (frame(CONTINUATION, b"x", fin=fin),)
        does = f"{'last' if fin else 'further'} fragment of nothing"
        yield Case("5.4", does, sends, closed(1002))
    for kind in (TEXT, BINARY):
        sends = (start, frame(kind, b"x"))
        yield Case("5.4", f"new {NAMES[kind]} between fragments", sends, closed(1002))


WELL_FORMED: Final = {
    "two, three and four bytes a character": "µ你🙂".encode(),
    "the last code point": "\U0010ffff".encode(),
    "noncharacters": "\ufffe\uffff".encode(),
    "zero": b"\x00",
}
ILL_FORMED: Final = {
    "a continuation byte alone": b"\x80",
    "a character cut off": "你".encode()[:2],
    "an overlong slash": b"\xc0\xaf",
    "an overlong zero of three bytes": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb9\x82",
    "beyond the last code point": b"\xf4\x90\x80\x80",
    "five bytes a character": b"\xf8\x88\x80\x80\x80",
    "0xFF": b"\xff",
}


def utf8() -> Iterator[Case]:
    for does, text in WELL_FORMED.items():
        yield Case("8.1", does, (frame(TEXT, text),), echo(TEXT, text))
    split = fragments(TEXT, b"\xe4", b"\xbd", b"\xa0")
    yield Case("8.1", "a character over three fragments", split, echo(TEXT, "你".encode()))
    for does, text in ILL_FORMED.items():
        yield Case("8.1", does, (frame(TEXT, text),), closed(1007))
    second = fragments(TEXT, b"ok", b"\xff")
    yield Case("8.1", "0xFF in the last fragment", second, closed(1007))
    unfinished = (frame(TEXT, b"\xff", fin=False),)
    yield Case("8.1", "0xFF in the first fragment", unfinished, closed(1007))
    cut = (*fragments(TEXT, b"\xe4", b"x"),)
    yield Case("8.1", "a character cut off by a fragment", cut, closed(1007))
    yield Case("8.1", "0xFF in binary", (frame(BINARY, b"\xff"),), echo(BINARY, b"\xff"))


VALID_CODES: Final = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
INVALID_CODES: Final = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)


def closes() -> Iterator[Case]:
    yield Case("5.5.1", "close without a code", (frame(CLOSE),), "close without a code, end")
    for code in VALID_CODES:
        yield Case("7.4", f"close {code}", (close_frame(code),), closed(code))
    for code in INVALID_CODES:
        yield Case("7.4", f"close {code}", (close_frame(code),), closed(1002))
    yield Case("5.5.1", "close of one byte", (frame(CLOSE, b"\x03"),), closed(1002))
    yield Case("5.5.1", "close with a reason", (close_frame(1000, b"bye"),), closed(1000))
    longest = (close_frame(1000, b"*" * 123),)
    yield Case("5.5.1", "close with the longest reason", longest, closed(1000))
    too_long = (close_frame(1000, b"*" * 124),)
    yield Case("5.5", "close of 126 bytes", too_long, closed(1002))
    yield Case("5.5.1", "close with a reason of 0xFF", (close_frame(1000, b"\xff"),), closed(1007))
    yield Case("5.5", "close in fragments", (frame(CLOSE, fin=False),), closed(1002))
    for kind in (TEXT, PING, PONG):
        sends = (close_frame(1000) + frame(kind, b"late"),)
        yield Case("5.5.1", f"{NAMES[kind]} after close", sends, closed(1000))
    yield Case("5.5.1", "close twice", (close_frame(1000) * 2,), closed(1000))
    bye = frame(TEXT, b"bye")
    yield Case(
        "7.1.1", "the server closes, the client answers", (bye, close_frame(1000)), closed(1000)
    )
    yield Case(
        "7.1.1", "the server closes, the client is silent", (bye,), closed(1000), probes=False
    )


def limits() -> Iterator[Case]:
    longest = b"*" * MESSAGE_BYTES
    half = MESSAGE_BYTES // 2
    yield Case("10.4", "a message at the limit", (frame(TEXT, longest),), echo(TEXT, longest))
    beyond = (frame(BINARY, longest + b"*"),)
    yield Case("10.4", "a message beyond the limit", beyond, closed(1009))
    pieces = fragments(BINARY, longest[:half], longest[half:] + b"*")
    yield Case("10.4", "fragments beyond the limit", pieces, closed(1009))
    unfinished = (frame(BINARY, longest + b"*", fin=False),)
    yield Case("10.4", "a first fragment beyond the limit", unfinished, closed(1009))
    endless = (frame(BINARY, longest + b"*", declared=2**62),)
    yield Case("10.4", "a frame said to have 2⁶² bytes, as they come", endless, closed(1009))


CASES: Final = tuple(
    case
    for group in (handshakes, framing, reserved, pings, fragmentation, utf8, closes, limits)
    for case in group()
)


class Peer:
    """A client on a bare socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def close(self) -> None:
        self._socket.close()

    def attempt(self, case: Case) -> str:
        """Do what the case says; gives its outcome."""
        said = self._status(case.opening or request())
        if said != "status 101":
            # The body tells a person why; what counts here is that nothing follows it.
            while self._more():
                pass
            return f"{said}, end"
        for piece in (*case.sends, *([frame(TEXT, PROBE)] if case.probes else [])):
            self._socket.sendall(piece)
        return ", ".join([*([said] if case.opening else []), *self._outcome()])

    def _status(self, opening: bytes) -> str:
        self._socket.sendall(opening)
        while b"\r\n\r\n" not in self._received:
            assert self._more(), "the server hung up in the handshake"
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status = head.split()[1].decode()
        if status == "101":
            assert ACCEPT in head, head
            # What was not known must not be agreed to.
            assert b"sec-websocket-extensions" not in head.lower(), head
            assert b"sec-websocket-protocol" not in head.lower(), head
        return f"status {status}"

    def _outcome(self) -> Iterator[str]:
        for opcode, payload in self._frames():
            if (opcode, payload) == (TEXT, PROBE):
                yield OPEN
                return
            yield described(opcode, payload)
        yield "end"

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Whole frames, up to the end of the stream."""
        while True:
            first, second = self._take(2) or b"\0\0"
            if not first:
                return
            # A server neither fragments an echo nor sets reserved bits, nor does it mask.
            assert first & 0xF0 == 0x80, hex(first)
            assert second < 0x80, hex(second)
            long = {126: 2, 127: 8}.get(second, 0)
            size = int.from_bytes(self._take(long)) if long else second
            yield first & 0x0F, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            if not self._more():
                assert not self._received, "the server hung up within a frame"
                return b""
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _more(self) -> bool:
        data = self._socket.recv(65_536)
        self._received += data
        return bool(data)


def outcome(address: Mapping[str, object], case: Case) -> str:
    """What comes of a case at the server of this address."""
    with closing(Peer(str(address["host"]), int(str(address["port"])))) as peer:
        return peer.attempt(case)


def table(outcomes: Sequence[str]) -> str:
    """The cases and what came of them, in Markdown."""
    lines = ["| section | the client sends | by RFC 6455 | outcome |", "|---|---|---|---|"]
    for case, came in zip(CASES, outcomes, strict=True):
        said = "the same" if came == case.wants else f"**{came}**: {case.why}"
        lines.append(f"| {case.section} | {case.does} | {case.wants} | {said} |")
    return "\n".join(lines)


def with_part(page: str, name: str, text: str) -> str:
    """The page with the text between the two comments of this name."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert marked.search(page), name
    return marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def main() -> None:
    command = [sys.executable, HERE / "echo_gateway.py", str(MESSAGE_BYTES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())
        outcomes = [outcome(address, case) for case in CASES]
    page = PAGE.read_text("utf-8")
    PAGE.write_text(with_part(page, "cases", table(outcomes)), "utf-8")
    differing = [case for case, came in zip(CASES, outcomes, strict=True) if came != case.expected]
    for case, came in zip(CASES, outcomes, strict=True):
        if case in differing:
            print(f"{case.section} {case.does}: expected {case.expected}; came {came}")  # noqa: T201
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
