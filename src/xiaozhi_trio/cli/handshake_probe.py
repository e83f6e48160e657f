"""Why does a client not get through to a xiaozhi server? Asks the server as each client does.

Usage: `python handshake_probe.py URL` with the WebSocket address (`ws://`, `wss://`) or the
OTA address (`http://`, `https://`) of any xiaozhi server. Needs Python 3.11, trio and
trio-websocket; this one file may be copied anywhere.

Every kind of client is played by the very bytes that it sends, so that what the server makes
of them is seen as the client sees it: status, words, close code, a bare end, or silence.
Then follow text and voice turns. What was seen is looked up in tables of rules, each with a
stable reason, the likely cause and what to change, in English and Chinese.

Facts about clients are those of the firmware 78/xiaozhi-esp32 2.4.2 with its socket component
esp-ml307 3.6.4 (read, not run), py-xiaozhi 2.1.1, xiaozhi-sdk 0.5.1, and the browser test page
of xiaozhi-esp32-server 0.9.6 ("the page").

Exit status: 0 where nothing keeps a client out or a turn from working, 1 where something does,
2 where the arguments are wrong or nothing can be reached.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import ipaddress
import json
import os
import re
import secrets
import socket
import ssl
import struct
import sys
import time
import unicodedata
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeGuard, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import h11
import trio
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

DEVICE_ID: Final = "02:70:72:6f:62:65"
"""Locally administered, so that it is no real device's; the same in every run, so that a server
which keeps a list of devices gets one entry."""
CLIENT_ID: Final = "7a1b6c52-93f0-4c59-8c35-70726f626531"
FIRMWARE_VERSION: Final = "2.4.2"
WORDS: Final = "Say hello in one short sentence."

_MAX_ANSWER_BYTES: Final = 65_536
_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_RECEIVE_BYTES: Final = 16_384


class Text(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str

    def of(self, language: str) -> str:
        """The text in `en` or `zh`."""
        return self.zh if language == "zh" else self.en


class Verdict(Enum):
    """How a step went; the value is the word in the JSON report."""

    OK = "ok"
    WARNING = "warning"
    """It works, and costs somebody time or safety."""
    FAULT = "fault"
    """It keeps a client out, or a turn from working, or lets anybody in."""
    SKIPPED = "skipped"


# --- Addresses ----------------------------------------------------------------------------------


class AddressWrong(Exception):
    """The text is no address that can be asked; says what was expected."""


@dataclass(frozen=True)
class Address:
    """Where to connect to."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `AddressWrong`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise AddressWrong(f"the address cannot be read: {error}") from error
        if parts.scheme not in {"ws", "wss", "http", "https"} or not parts.hostname:
            raise AddressWrong(
                "an address that begins with ws:// or wss:// (WebSocket), or with http:// or "
                "https:// (OTA), was expected"
            )
        if parts.username is not None or not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
            raise AddressWrong("an address without user name, blanks and non-ASCII was expected")
        default = 443 if parts.scheme in {"wss", "https"} else 80
        host = parts.hostname
        path = parts.path or "/"
        return cls(parts.scheme, host, default if port is None else port, path, parts.query)

    @property
    def secure(self) -> bool:
        """Whether to speak TLS."""
        return self.scheme in {"wss", "https"}

    @property
    def is_ota(self) -> bool:
        """Whether this is an address for HTTP."""
        return self.scheme in {"http", "https"}

    @property
    def bare_host(self) -> str:
        """The host as a `Host` header has it, without a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self.bare_host}:{self.port}"

    def target(self, *more: tuple[str, str]) -> str:
        """Path and query of the request, with further parameters."""
        query = "&".join(filter(None, [self.query, urlencode(more, quote_via=quote)]))
        return f"{self.path}?{query}" if query else self.path

    def __str__(self) -> str:
        # The query may hold a token.
        return f"{self.scheme}://{self.authority}{self.path}"


def is_sendable(value: str) -> bool:
    """Whether a header can have this value."""
    return value.isascii() and value.isprintable()


def is_loopback(host: str) -> bool:
    """Whether the host is this very machine under a name that no other can use."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Whether the host is `0.0.0.0` or `::`, which are for listening only."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


# --- One request and its answer, over h11 -------------------------------------------------------


class Kind(Enum):
    """What came of a request."""

    HTTP = "http"
    HUNG_UP = "hung_up"
    """The end of the connection, without a single byte."""
    SILENT = "silent"
    NOT_HTTP = "not_http"
    UNREACHABLE = "unreachable"
    """No connection could be made, or no TLS in it."""


@dataclass
class Answer:
    """What a server sent back."""

    kind: Kind = Kind.SILENT
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    """Names in lower case."""
    body: bytes = b""
    rest: bytes = b""
    """What came behind a 101."""
    detail: str = ""
    """What the operating system, the TLS library or the first bytes say of a failure."""
    seconds: float = 0.0

    def header(self, name: str) -> str | None:
        """The first value of a header; None where it did not come."""
        return next((value for each, value in self.headers if each == name), None)

    @property
    def upgraded(self) -> bool:
        """Whether the WebSocket stands."""
        return self.status == HTTPStatus.SWITCHING_PROTOCOLS

    @property
    def text(self) -> str:
        """The body, for showing."""
        return self.body.decode("utf-8", "replace")

    @property
    def is_tls(self) -> bool:
        """Whether the peer answered with a TLS record: an alert, or more of a handshake."""
        return self.kind is Kind.NOT_HTTP and self.body[:2] in {b"\x15\x03", b"\x16\x03"}

    def document(self) -> dict[str, Any] | None:
        """The JSON object of a 200; None for anything else."""
        if self.status != HTTPStatus.OK:
            return None
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class Unreachable(Exception):
    """No connection; the text is the operating system's or the TLS library's word for it."""

    def __init__(self, detail: str, *, untrusted: bool = False, in_tls: bool = False) -> None:
        super().__init__(detail)
        self.untrusted = untrusted
        """The certificate is the only obstacle."""
        self.in_tls = in_tls
        """TCP works, TLS does not."""


@dataclass(frozen=True)
class Dialler:
    """Makes connections to one address."""

    address: Address
    seconds: float
    """For TCP, and again for TLS."""
    trusting: ssl.SSLContext
    """Verifies certificates."""
    unverified: ssl.SSLContext

    @asynccontextmanager
    async def open(
        self, *, secure: bool | None = None, verify: bool = True
    ) -> AsyncIterator[trio.abc.Stream]:
        """A connection for the block, dropped without ceremony at its end.

        `secure` is as the address says by default. Raises `Unreachable`.
        """
        stream = await self._connect()
        try:
            if self.address.secure if secure is None else secure:
                stream = await self._secure(stream, self.trusting if verify else self.unverified)
            yield stream
        finally:
            await trio.aclose_forcefully(stream)

    async def _connect(self) -> trio.abc.Stream:
        host, port = self.address.host, self.address.port
        try:
            with trio.fail_after(self.seconds):
                return await trio.open_tcp_stream(host, port)
        except trio.TooSlowError:
            raise Unreachable(f"no TCP connection within {self.seconds:g} s") from None
        except socket.gaierror as error:
            raise Unreachable(f"{host}: {error.strerror}") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(_first_word(error)) from error

    async def _secure(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        tls = trio.SSLStream(
            stream, context, server_hostname=self.address.host, https_compatible=True
        )
        try:
            with trio.fail_after(self.seconds):
                await tls.do_handshake()
        except trio.TooSlowError:
            raise Unreachable(f"no answer to TLS within {self.seconds:g} s", in_tls=True) from None
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise Unreachable(cause.verify_message, untrusted=True, in_tls=True) from error
            word = str(cause.reason) if isinstance(cause, ssl.SSLError) else "the peer hung up"
            raise Unreachable(word, in_tls=True) from error
        return tls


def _first_word(error: BaseException) -> str:
    """The text of what lies at the bottom of the error that trio makes of several tries."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


async def ask(
    stream: trio.abc.Stream, request: bytes, *, seconds: float, upgrade: bool = False
) -> Answer:
    """Send the very bytes of `request` and read what comes of it."""
    answer = Answer()
    began = trio.current_time()
    with trio.move_on_after(seconds):
        await _read_answer(stream, request, answer, upgrade=upgrade)
    answer.seconds = trio.current_time() - began
    return answer


async def _read_answer(
    stream: trio.abc.Stream, request: bytes, answer: Answer, *, upgrade: bool
) -> None:
    # The parser has to know what was asked; what it would have sent is not used.
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER_BYTES)
    headers = [("Host", "x")]
    if upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    parser.send(h11.Request(method="GET", target="/", headers=headers))
    parser.send(h11.EndOfMessage())
    received = b""
    try:
        await stream.send_all(request)
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some(_RECEIVE_BYTES)
                received = (received + data)[:_MAX_ANSWER_BYTES]
                parser.receive_data(bytes(data))
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                answer.kind, answer.status = Kind.HTTP, event.status_code
                answer.headers = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in event.headers
                ]
                if answer.upgraded:
                    answer.rest = parser.trailing_data[0]
                    return
            elif isinstance(event, h11.Data):
                answer.body += event.data
                if len(answer.body) > _MAX_ANSWER_BYTES:
                    return
            else:
                return
    except trio.BrokenResourceError:
        # A reset; what had come until then tells more than it.
        pass
    except h11.RemoteProtocolError as error:
        answer.detail = str(error)
    if answer.kind is Kind.HTTP:
        return
    if received:
        answer.kind, answer.body = Kind.NOT_HTTP, received[:64]
    else:
        answer.kind = Kind.HUNG_UP


# --- The WebSocket after its upgrade, over wsproto ----------------------------------------------


class Ended(Exception):
    """The server's side of the WebSocket is over."""

    def __init__(self, code: int, reason: str = "", *, violation: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        """1006 where it just ended."""
        self.reason = reason
        self.violation = violation
        """It sent frames that RFC 6455 forbids."""


class Channel:
    """Messages over an upgraded stream. One task may receive, any may send."""

    def __init__(self, stream: trio.abc.Stream, rest: bytes) -> None:
        self._stream = stream
        self._frames = Frames(ConnectionType.CLIENT, trailing_data=rest)
        self._events = self._frames.events()
        self._partial: list[str | bytes] = []
        self._sending = trio.Lock()

    async def send(self, payload: str | bytes | dict[str, Any]) -> None:
        """Send text, bytes or JSON. Raises `Ended`."""
        if isinstance(payload, dict):
            payload = json.dumps(payload, ensure_ascii=False)
        event = TextMessage(payload) if isinstance(payload, str) else BytesMessage(payload)
        await self._send(event)

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(self._frames.send(event))
            except (LocalProtocolError, trio.BrokenResourceError) as error:
                raise Ended(1006) from error

    async def receive(self) -> str | bytes:
        """The next message; answers pings. Raises `Ended`.

        May be cancelled, since it keeps what it has until then.
        """
        while True:
            event = next(self._events, None)
            if event is None:
                await self._read()
            elif isinstance(event, Ping):
                # Half a pong would spoil all that follows, so it is not cancelled with the rest.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._send(event.response())
            elif isinstance(event, CloseConnection):
                # wsproto invents a close where a frame is malformed, and stays open.
                violation = self._frames.state is ConnectionState.OPEN
                raise Ended(int(event.code), event.reason or "", violation=violation)
            elif isinstance(event, TextMessage | BytesMessage):
                self._partial.append(
                    event.data if isinstance(event.data, str) else bytes(event.data)
                )
                if sum(map(len, self._partial)) > _MAX_MESSAGE_BYTES:
                    raise Ended(1009, f"a message of more than {_MAX_MESSAGE_BYTES} bytes")
                if event.message_finished:
                    whole = self._partial
                    self._partial = []
                    empty: Any = "" if isinstance(event, TextMessage) else b""
                    message: str | bytes = empty.join(whole)
                    return message

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise Ended(1006) from error
        if not data:
            raise Ended(1006)
        self._frames.receive_data(bytes(data))
        # A generator of wsproto ends where its data ends.
        self._events = self._frames.events()

    async def say_goodbye(self) -> None:
        """Send a close frame, if that is still possible within a second."""
        with trio.move_on_after(1):
            try:
                await self._send(CloseConnection(1000))
            except Ended:
                return


# --- Audio --------------------------------------------------------------------------------------


def framed(packet: bytes, version: int) -> bytes:
    """An Opus packet in the binary framing 1, 2 or 3."""
    if version == 2:
        return struct.pack(">HHIII", 2, 0, 0, 0, len(packet)) + packet
    if version == 3:
        return struct.pack(">BBH", 0, 0, len(packet)) + packet
    return packet


def unframed(frame: bytes, version: int) -> bytes | None:
    """The Opus packet in a binary frame; None where the frame is not of this framing."""
    if version == 2 and len(frame) >= 16:
        framing, kind, _, _, size = struct.unpack_from(">HHIII", frame)
        return frame[16:] if (framing, kind, size) == (2, 0, len(frame) - 16) else None
    if version == 3 and len(frame) >= 4:
        kind, _, size = struct.unpack_from(">BBH", frame)
        return frame[4:] if (kind, size) == (0, len(frame) - 4) else None
    if version == 1:
        # By chance a bare packet looks like a frame once in millions.
        framed_by_mistake = unframed(frame, 2) or unframed(frame, 3)
        return None if framed_by_mistake else frame
    return None


def packet_ms(packet: bytes) -> float:
    """How long an Opus packet is, by its first bytes (RFC 6716, 3.1)."""
    if not packet:
        return 0.0
    configuration, count_code = packet[0] >> 3, packet[0] & 3
    if configuration < 12:
        each = (10.0, 20.0, 40.0, 60.0)[configuration % 4]
    elif configuration < 16:
        each = (10.0, 20.0)[configuration % 2]
    else:
        each = (2.5, 5.0, 10.0, 20.0)[configuration % 4]
    if count_code == 3:
        return each * (packet[1] & 63) if len(packet) > 1 else 0.0
    return each * (2 if count_code else 1)


def clip(frame_ms: int) -> list[bytes]:
    """A spoken "Hello, how are you?" in Opus packets of 60 or 20 ms, the last of them silence."""
    data = base64.b64decode(_CLIPS[frame_ms])
    packets = []
    start = 0
    while start < len(data):
        end = start + 1 + data[start]
        packets.append(data[start + 1 : end])
        start = end
    return packets


# Synthesised, 16 kHz mono at 12 kbit/s; each packet behind one byte with its length.
_CLIPS: Final = {
    60: (
        b"TVhkGVWEgXVC3VN1lDOfKgzSvITeXiQBdHPNaVijEg/RR7AGL67UH8j0Ar3MNoqIixY+VPh+dyuSBQKhoiABq+K46e"
        b"NCMOInyQoclhJAXVjlDnziBcA2dUoT2wY9iv9T8XBg3Y2iI+h0ppTAqJSzbm07B9YwFbxNNj9JPk6Q7NYbB0SxKg1w"
        b"Whjx0PJhHXiIzvi03+AdUKcyc11CjJFtcRvU24a9WqYuXwZEIF9Y7xKyAEM5a1+l6cqe4PEbx+ffI1jltAfAl/SzUp"
        b"CJISxChAx9kD+hspX1G7P+pzV/WKoJBlJB1mKYh2qo6LEnEPynuQdbj0xu2ycVJHdS1aiWkc9Phj7D7xrtn5NtwFxY"
        b"66QeiQ9EkVQGBtbAVHh2M/huZYc3+ne8fcJvAU2TBAHxvsLwLlCShzkp40/yqP3sJx8x3U81MZqMCh/2iHIFGAd4YN"
        b"XSiI6SE/r5rvO0xW+t6P451kk11shtMFFY7rMt4B0ullpvNtHrZJ0MpOo10UfwHi1lFygDytCYCmByEg+ASd6vA3tG"
        b"l5QAu5d1QeMvlIZOIlzlt0E+Pr6cr8oacdnLHfzV24QmClSy2A5NWO7+LHzk5M/I+81hvXOg6Jfp31rtd90Kt1xFUt"
        b"0ALK6B7o0KbQvud8MwRXykRC7e1BldPkYbraqyISBzRMWrM39VJl7XrLi03G8w1+BTWO5brILi0z2D+aY4ZgCpJzJf"
        b"90YUGaOGwRXZpYW908DFcCB7pM9uH745FEIrThsHO2cGkChOvRAE6b8S6KT6/MGryTkAnlloh+XPmXZ9ofscTYBdWO"
        b"vyuqV8HlVrOXkoIe285DhczQcc6ZRgw04ciDL912Op6IHL6w+72U0jSsZL7gF6H+/KWkIq0IulOtrUpmpMb8R5hypo"
        b"4L7SD5qzAlJ4PU0P+IQWpPTRrK5QfHDAZljr00dArd5VWw7jGPeQChpJLuJMNTlugIkP5magpp4DGu3nggX/q8Y8Fh"
        b"I1BZIM8UAr/6qG7AlECbW3lAdw/lApUz63Xf2ySstTaCn/soB5VdubLox4pb3IV7rETFMfBMBbXQD0mFxY5cY268JC"
        b"BRthzntWHVLTkNW3yovWu1Fr2C3/b3wDUBawyUA69a78PDtgrtwHza85JqOLXEBBBcZwpE52LqC7oDgJr8gcwvMIcT"
        b"Q0g34LrCNsDLlWmyIqX6B6QFFY4V6BcR9wWDQRGe2Josqt4OdXOKgofHRajn7fKYPukKG4p6SH1OcRs7ZBlml311dz"
        b"2l8quo7dBtzaUrnCvWZ0LtKY79sGIarOYmD3b3ZSVIpgWO07I7HvYTVv97i/GoxXG5Ji7FRu1XjsMDvSdHUD7Mvs9B"
        b"jQMIctqV9UrcxQGAx+3YRqPPHtfuG4sCoTwrS2CtPwifCMqlS+I9B+BaIitNfuuzXyxMJ/QEZVukGPx8k4WVjs9XxT"
        b"sgWnqrsiyInej4HgLxjD1VuIGWC4CiEUXu8fSoS6uww99c0fLOaSBIPYR4hju4yKyvYrZdm2/wsnheIBYzVXOjMVx8"
        b"YifSZYUDhCponpz+WP6GLAXVjslMS67BA9SXULqoMbXGuYJXYfIFCm8+ytOdnzPWItTdRsMMYSx0AfQO5Ug31cbI6p"
        b"yugHKyoNXiCQey7hZ0fob8spg+pQ9BEc+ayzVDEeEzDuu9qYH/T/sjkfFU5Y4SmkPz+5Fq+RrkY71RvcMHiJh293V6"
        b"VCQnIIisT4LIFz3lW7cG1za2gZSDizLkSZ7u9hsZDNO/a7OoswriBEPBlHlsa+JYKV8IcZXShDWIDfTw/K8sYKD/UY"
        b"wXsq36AZLzDpXRDjwfPl16qMuhaFr2Rqen/CbnEpRkZxnDL9Bj7suUtNS4wmqSTHinYiQOwM4EVYDy3uXILcpYzi23"
        b"OjaDeQj78Kz79JhjVTLFHOnWaplxqDtz5XTciYA5i1+X4nCTnhizot64zLSVm/BwQV3xiih7PdMQg4WAwk6eg3X6Vr"
        b"zGhVzAA5lpA0Cuq06D0VaPTplZ+6C7Ma3kmEH4/IqHW+zCZJNfFcmUlxSJpaTyAWWAL5ME297dZzheO5VXKEAvO26V"
        b"OfwBVYAfJecjaSHwX6R41pLI8gCvv7KyAVWAHyXnI2kh8F+keNaSyPIAr7+ysgFVgB8l5yNpIfBfpHjWksjyAK+/sr"
        b"IA=="
    ),
    20: (
        b"F0gQZVYSBdUJv1/6I7lQytvgxdE76MngHEiHn5SE8HHPlpiuY1O8ofwly2oT3sESaMaE7sMeSIIBJorKtS7x1E6Ivh"
        b"YABibcCO+3JSVn6szqs+1AIUiUN/e81nq7irO112S932EAkchi9dId0YeXilxN8XJroCBIhYyzXWNu+D2DsfdafZjU"
        b"yIrkFlrihZ3Bayyywy7utB9Il0AS71NNWBCisrjzhMEwK+c5wMNY+101syDXaR+wJUi8Ssf/Ym0QJ3uGmrCicXb94N"
        b"t9UoHU83wbjRq7aU23MabVUaggSLsMI/6TG41H/a6Hm+2TnLffKpzqHa2JhFyvaC5V2OAhSLS7ddCSN5R3xwEpOmZy"
        b"e6sdPbsAfZFWrmHpGmGzyam8HEiukHofPDmBd2o0hmFW5lBthv8Ikumappn5v0wYSK7GtPZQ9un0Kc8ragwxHyJcng"
        b"KIR/upJkiyuouhoP9rpRW2p00vJem95rT2thgJgw4UaBTYf+wSM8hnOeRAIUi6p7gwMoY3d84OyoQCpp3LelsJxbh/"
        b"vkXlM1G0Gq/9CR1Iu/1pyhRGUCMFIwBWo3YK7uIFO/OlzkNpxEqGqBdIu/1jrEFxX2fO4CwBBU2EdsJmySzvXBhIu/"
        b"ix8wJnM0xC8WOhETtoHEmopLAMApAZSLtCfh5oYcYqmRQ6Y3P771V8XsNBYMl4BhhIumvtUQTa0V7tWSDTkF5ad16x"
        b"hAJZ8HgbSLlusgt/zAiF0PibFuuvk7gbU7BChocIjRByH0i2mHrQ/S6j+WhBW/kGXfN6l4FAxeKynK6oPHl/nIAdSL"
        b"THhCx2JAYWmzOEr6q/FUZL9WJgnYObo0tSjmAaSK/K6pMp9HfSYLjRKMsaiSMUtG4eITKCnxgcSKxnoR7wKOk21yEZ"
        b"vImo6p9v6TPwCzuJMMlvwCJIqyEm6YLz388QZ8Uw/t16gsp4TSF8N870nASbStRaktEQJkivTR0Ct3pETedii3jBur"
        b"8XeK4L6+OZIb670n/nJ7yNFPdtec3oIkiVEQnjNOn64+pDUN0wZl+GuOmnpSA4OERaUM1ytcTWI5QlSJZQyGYcj5kD"
        b"7FLPbjS5HI/MGMDsliS/YI5zlOPmH5Ob2TQXwCFIlxjbrXfWvuxd53e1qwU3g5fi6Hss/1hqJIoEJhgUi0UhSJdPdg"
        b"MROok4aO6RrkTGTadJ3pNLkRz2FzB2cdlY991AI0iXXqUsubvCxOlngWDOBeqIOO5yh9r+FcZYBblEHV+eErXmIkiF"
        b"egXEfaY6UzIdGtQKfds2JNCRFYQ0d5Rp9Lxahf+r15QdSLlO/Jq8hGRJQNM1pDMrCqNe3Hwli1YBKsmG+YAaSLeAh5"
        b"oEu4TLB6Qs/OZy3SL+E8TXqziGPEAdSLTsjsVMkP62u87HIXCaIs6NpSWZ99NGcjPI/pAhSLMyy93oSxHA3jjwjMQP"
        b"z1yTRKjlOjpfRZrX0lWGpTrgIkix+mNf7PFklgqSkfyWDSocMvSD9pwvaWXvB0t5OPTf8mAlSLPV8U5DAyzdj00khE"
        b"Kh6tFVuc7tTTBx9rF0dOIQwRxQnbQaXBxIs5fM+3iMVXw+Cz8pkS0QHB6phMxzthNWtjhEGkix9NAhHza27VFo1rrg"
        b"md7wwS9Yul8LfOFSIUiyUxLruIeKtHL3eeCvcC6hKaE4Nhp1lGZUObsXhCw7QCRItSuYYVV7qrH7hMGEPNYLXMAe7Z"
        b"J68UyVAdOI2bSMIZDCXoAeSISzxKg5DTL/Am54nn/xWLbJEojroPU8K5ZFHZZCHUiEpfq8n6mNItyT0TNbXoPi1lb8"
        b"KCwdF6BUmWcJH0iELlz5qMDXaRFPT7Ky0yaQN8wAPNlhyORsggoG1X0aSIOjyRNuz9snrnrKXTS9zYIOlu9OJcQ4IK"
        b"obSINO/8nt48dA05QQNIW88kmvJl8mMQVgswpAFEgGAfWu75FQWOjjAWDJ4jK2XSDgGEgGAYvx/2ZAs8rj2S/b0vPs"
        b"XyHtmWRcoBlIPLe5bKNSxi4Mdw8LNcGztcJfrJACdRTCGUg7NeHZN/xFeax7/QNoWYPMku+tOqWUtowVSDfTKxJAnW"
        b"P+dTX54+dib8ub7JF1GUgwk6ehB5gmwlkg3EV6OeOfoUFsRxP4QaAVSCrdN51xsd4dvM8p04tpTAiczbRsEkgDtKvd"
        b"8MXtemzOrF/u94RXwAlIC+TBNwGpn/YISAfJecjJV8AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8"
        b"AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8AISAfJecjJV8A="
    ),
}


# --- The clients --------------------------------------------------------------------------------


class Identity(Enum):
    """Where a client says who it is."""

    HEADERS = "headers"
    QUERY = "query"
    NONE = "none"


class Token(Enum):
    """Which token a client comes with."""

    GIVEN = "given"
    NONE = "none"
    EMPTY = "empty"
    """A bare `Bearer`, as xiaozhi-sdk sends where it has none."""
    WRONG = "wrong"
    EXPIRED = "expired"
    """Of the usual form, and issued in 2001."""
    FOREIGN = "foreign"
    """Issued for another device."""


class Speech(Enum):
    """What a client does after the hello."""

    NONE = "none"
    TEXT = "text"
    AUTO = "auto"
    """Speaks, and lets the server find the end of it."""
    MANUAL = "manual"
    """Speaks, and says when it is done (push-to-talk)."""


class Welcome(Enum):
    """What a server owes a client."""

    IN = "in"
    OUT = "out"
    IF_NO_TOKENS = "if_no_tokens"
    """In, unless the server asks for tokens."""
    EITHER = "either"


@dataclass(frozen=True)
class Client:
    """One kind of client."""

    key: str
    name: Text
    welcome: Welcome = Welcome.IN
    identity: Identity = Identity.HEADERS
    token: Token = Token.GIVEN
    origin: bool = False
    """It is a page in a browser."""
    upper_case: bool = False
    connection: str = "Upgrade"
    wrong_path: bool = False
    framing: int = 1
    frame_ms: int = 60
    speech: Speech = Speech.NONE

    @property
    def reads_refusals(self) -> bool:
        """It can read the answer to a refused upgrade, as a page in a browser cannot."""
        return not self.origin


CLIENTS: Final = (
    Client("firmware", Text("firmware (headers)", "固件（请求头）")),
    Client("query", Text("identity in the query only", "仅地址参数"), identity=Identity.QUERY),
    Client(
        "browser",
        Text("page in a browser (Origin)", "浏览器页面（Origin）"),
        identity=Identity.QUERY,
        origin=True,
    ),
    Client("upper-case", Text("upper-case header names", "大写请求头"), upper_case=True),
    Client(
        "keep-alive",
        Text("Connection: keep-alive, Upgrade", "Connection: keep-alive, Upgrade"),
        connection="keep-alive, Upgrade",
    ),
)
TOKEN_CLIENTS: Final = (
    Client("no-token", Text("no token", "无令牌"), Welcome.EITHER, token=Token.NONE),
    Client("empty-token", Text("empty token", "空令牌"), Welcome.IF_NO_TOKENS, token=Token.EMPTY),
    Client("wrong-token", Text("wrong token", "错误令牌"), Welcome.IF_NO_TOKENS, token=Token.WRONG),
    Client(
        "expired-token",
        Text("expired token", "过期令牌"),
        Welcome.IF_NO_TOKENS,
        token=Token.EXPIRED,
    ),
    Client(
        "foreign-token",
        Text("another device's token", "其他设备的令牌"),
        Welcome.IF_NO_TOKENS,
        token=Token.FOREIGN,
    ),
    Client(
        "browser-wrong-token",
        Text("page with a wrong token", "浏览器页面，错误令牌"),
        Welcome.IF_NO_TOKENS,
        identity=Identity.QUERY,
        token=Token.WRONG,
        origin=True,
    ),
)
STRAY_CLIENTS: Final = (
    Client("wrong-path", Text("wrong path", "错误路径"), Welcome.OUT, wrong_path=True),
    Client("no-device-id", Text("no device id", "无设备标识"), Welcome.OUT, identity=Identity.NONE),
)
TURN_CLIENTS: Final = (
    Client("text-v1", Text("text turn, framing 1", "文字对话，帧格式 1"), speech=Speech.TEXT),
    Client(
        "text-v2", Text("text turn, framing 2", "文字对话，帧格式 2"), framing=2, speech=Speech.TEXT
    ),
    Client(
        "text-v3", Text("text turn, framing 3", "文字对话，帧格式 3"), framing=3, speech=Speech.TEXT
    ),
    Client(
        "voice-60", Text("voice turn, 60 ms packets", "语音对话，60 毫秒包"), speech=Speech.AUTO
    ),
    Client(
        "voice-20",
        Text("push-to-talk, 20 ms packets", "按键说话，20 毫秒包"),
        frame_ms=20,
        speech=Speech.MANUAL,
    ),
)
QUICK_TURNS: Final = frozenset({"text-v1"})


@dataclass(frozen=True)
class Papers:
    """What the probe shows of itself."""

    device_id: str
    client_id: str
    token: str = field(default="", repr=False)

    def device_of(self, client: Client) -> str:
        """The device id a client comes with."""
        foreign = client.token is Token.FOREIGN and self.token
        return "02:70:72:6f:62:66" if foreign else self.device_id

    def authorization(self, client: Client) -> str | None:
        """The value of `Authorization`; None where it is not sent."""
        if client.token is Token.NONE or (client.token is Token.GIVEN and not self.token):
            return None
        token = {
            Token.GIVEN: self.token,
            Token.EMPTY: "",
            Token.WRONG: "not-a-token",
            Token.EXPIRED: f"{secrets.token_urlsafe(32)}.1000000000",
            Token.FOREIGN: self.token or f"{secrets.token_urlsafe(32)}.{int(time.time())}",
        }[client.token]
        # Firmware sends a token with a blank in it as it stands.
        return token if " " in token else f"Bearer {token}".rstrip()


def upgrade_request(client: Client, address: Address, papers: Papers, key: str) -> bytes:
    """The request as this kind of client sends it, header by header."""
    said = {"device-id": papers.device_of(client), "client-id": papers.client_id}
    authorization = papers.authorization(client)
    if authorization is not None:
        said["authorization"] = authorization
    if client.identity is Identity.NONE:
        said.pop("device-id")
    in_query = client.identity is Identity.QUERY
    place = replace(address, path="/handshake-probe/no-such-path") if client.wrong_path else address
    target = place.target(*said.items()) if in_query else place.target()
    if client.origin:
        headers = _browser_headers(client, address, key)
    else:
        headers = _device_headers(client, address, key, {} if in_query else said)
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("ascii")


def _device_headers(
    client: Client, address: Address, key: str, said: dict[str, str]
) -> list[tuple[str, str]]:
    # Firmware names no port in Host, and has its headers in the order of the alphabet.
    headers = {name.title(): value for name, value in said.items()}
    headers |= {
        "Connection": client.connection,
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Upgrade": "websocket",
    }
    if said:
        headers["Protocol-Version"] = str(client.framing)
    ordered = [("Host", address.bare_host), *sorted(headers.items())]
    return [(name.upper() if client.upper_case else name, value) for name, value in ordered]


def _browser_headers(client: Client, address: Address, key: str) -> list[tuple[str, str]]:
    return [
        ("Host", address.authority),
        ("Connection", client.connection),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) handshake-probe"),
        ("Upgrade", "websocket"),
        ("Origin", "http://127.0.0.1:8006"),
        ("Sec-WebSocket-Version", "13"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Accept-Language", "zh-CN,zh;q=0.9"),
        ("Sec-WebSocket-Key", key),
    ]


def hello_of(client: Client, papers: Papers) -> dict[str, Any]:
    """The first message of a client. It offers no tools, for the probe has none."""
    features = {"mcp": False}
    if client.origin:
        return {
            "type": "hello",
            "device_id": papers.device_of(client),
            "device_name": "handshake-probe",
            "device_mac": papers.device_of(client),
            "features": features,
        }
    return {
        "type": "hello",
        "version": client.framing,
        "features": features,
        "transport": "websocket",
        "audio_params": {
            "format": "opus",
            "sample_rate": 16000,
            "channels": 1,
            "frame_duration": client.frame_ms,
        },
    }


# --- What is seen of one client's visit ---------------------------------------------------------


@dataclass
class Turn:
    """What came between the question and the end of the answer. Times are Trio's, in seconds."""

    client: Client
    packet_ms: float
    """What the server's hello announced."""
    asked: float
    """When the question was complete."""
    heard: str = ""
    """What the server understood (`stt`)."""
    started: bool = False
    stopped: bool = False
    first_audio: float | None = None
    packets: int = 0
    longest_ms: float = 0.0
    misframed: int = 0
    early: int = 0
    """Packets before `tts start`."""
    ahead: float = 0.0
    """The most packets that a device had to hold back."""
    alert: str = ""
    aborted: bool = False
    """The probe has heard enough and said so."""
    ended: Ended | None = None
    reacted: trio.Event = field(default_factory=trio.Event)
    """The server does anything but listen."""
    _held: float = 0.0
    _last: float = 0.0

    def take(self, message: str | bytes, now: float) -> None:
        """Note one message of the server."""
        if isinstance(message, bytes):
            self._take_audio(message, now)
            return
        body = parse_message(message)
        kind, state = body.get("type"), body.get("state")
        if kind == "stt":
            self.heard = str(body.get("text", ""))
        elif kind == "alert":
            self.alert = str(body.get("message", ""))
            self.reacted.set()
        elif kind == "tts" and state == "start":
            self.started = True
            self.reacted.set()
        elif kind == "tts" and state == "stop":
            self.stopped = True
            self.reacted.set()

    def _take_audio(self, frame: bytes, now: float) -> None:
        packet = unframed(frame, self.client.framing)
        if packet is None:
            self.misframed += 1
        else:
            self.longest_ms = max(self.longest_ms, packet_ms(packet))
        if not self.started:
            self.early += 1
        if self.first_audio is None:
            self.first_audio = self._last = now
        self.packets += 1
        played = (now - self._last) * 1000 / self.packet_ms
        self._held = max(0.0, self._held - played) + 1
        self.ahead = max(self.ahead, self._held)
        self._last = now

    def end(self, ended: Ended) -> None:
        """Note that the server hung up."""
        self.ended = ended
        self.reacted.set()

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.stopped or self.ended is not None

    @property
    def silent(self) -> bool:
        """Whether the server did nothing at all."""
        return not (self.started or self.stopped or self.packets or self.alert or self.ended)


_ABOUT_TOKEN: Final = re.compile(r"token|auth|令牌|认证|授权|鉴权", re.IGNORECASE)


@dataclass
class Visit:
    """What one client saw."""

    client: Client
    answer: Answer
    key: str = ""
    """Its `Sec-WebSocket-Key`."""
    hello: dict[str, Any] | None = None
    hello_seconds: float = 0.0
    """From the hello of the client to that of the server."""
    told: str = ""
    """What the server said in place of a hello."""
    ended: Ended | None = None
    turn: Turn | None = None

    @property
    def let_in(self) -> bool:
        """Whether the server said hello."""
        return self.hello is not None

    @property
    def about_token(self) -> bool:
        """Whether the refusal is one of identity or token."""
        said = f"{self.told} {self.ended.reason if self.ended else ''}"
        return self.answer.status in {401, 403} or (
            not self.let_in and _ABOUT_TOKEN.search(said) is not None
        )

    def audio(self, name: str) -> float | None:
        """A number of the hello's `audio_params`; None where it is missing or no number."""
        parameters = (self.hello or {}).get("audio_params")
        value = parameters.get(name) if isinstance(parameters, dict) else None
        return value if is_number(value) else None

    @property
    def expected_accept(self) -> str:
        """What `Sec-WebSocket-Accept` has to be (RFC 6455, 4.2.2)."""
        text = f"{self.key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
        return base64.b64encode(hashlib.sha1(text, usedforsecurity=False).digest()).decode()


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a number; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_message(message: str) -> dict[str, Any]:
    """The JSON object in a text message; empty where there is none."""
    try:
        body = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


# --- One visit ----------------------------------------------------------------------------------

_ENOUGH_PACKETS: Final = {"text-v1": 250}
"""After so many packets of an answer the probe has heard enough; 8 elsewhere."""


@dataclass(frozen=True)
class Visitor:
    """Plays one client after the other against one WebSocket address."""

    dialler: Dialler
    papers: Papers
    verify: bool
    """Whether the certificate has to be trusted."""

    async def visit(self, client: Client, seconds: float) -> Visit:
        """Connect, say hello, and speak if the client speaks.

        `seconds` is the longest wait for the answer to the handshake and to the hello; a
        turn may take several times as long.
        """
        key = base64.b64encode(os.urandom(16)).decode()
        request = upgrade_request(client, self.dialler.address, self.papers, key)
        try:
            async with self.dialler.open(verify=self.verify) as stream:
                answer = await ask(stream, request, seconds=seconds, upgrade=True)
                visit = Visit(client, answer, key)
                if answer.upgraded:
                    channel = Channel(stream, answer.rest)
                    await self._converse(channel, visit, seconds)
                    await channel.say_goodbye()
        except Unreachable as error:
            return Visit(client, Answer(Kind.UNREACHABLE, detail=str(error)))
        return visit

    async def _converse(self, channel: Channel, visit: Visit, seconds: float) -> None:
        try:
            with trio.move_on_after(seconds):
                await self._greet(channel, visit)
        except Ended as ended:
            visit.ended = ended
        if visit.let_in and visit.client.speech is not Speech.NONE:
            visit.turn = await take_turn(channel, visit, seconds)

    async def _greet(self, channel: Channel, visit: Visit) -> None:
        began = trio.current_time()
        await channel.send(hello_of(visit.client, self.papers))
        while not visit.let_in:
            message = await channel.receive()
            if isinstance(message, bytes):
                continue
            body = parse_message(message)
            if body.get("type") == "hello":
                visit.hello = body
            elif not body:
                visit.told = visit.told or message
            elif body.get("type") in {"alert", "stt"}:
                visit.told = visit.told or str(body.get("message") or body.get("text") or "")
        visit.hello_seconds = trio.current_time() - began


async def take_turn(channel: Channel, visit: Visit, seconds: float) -> Turn:
    """Ask something and hear the answer out, or enough of it."""
    client = visit.client
    announced = visit.audio("frame_duration") or 0.0
    turn = Turn(client, announced if announced > 0 else 60.0, trio.current_time())
    enough = _ENOUGH_PACKETS.get(client.key, 8)
    session = {"session_id": (visit.hello or {}).get("session_id", "")}
    try:
        with trio.move_on_after(10 * seconds) as all_of_it:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask_question, channel, turn, session)
                await _hear(channel, turn, seconds, enough)
                turn.reacted.set()
        if not turn.over and (turn.packets >= enough or all_of_it.cancelled_caught):
            turn.aborted = True
            await channel.send({**session, "type": "abort"})
            with trio.move_on_after(seconds):
                await _hear(channel, turn, seconds)
    except Ended as ended:
        turn.end(ended)
    return turn


async def _hear(channel: Channel, turn: Turn, seconds: float, enough: float = float("inf")) -> None:
    """Listen until the answer is over, or enough of it has come, or nothing comes any more."""
    try:
        while not turn.over and turn.packets < enough:
            # Until the first sound the models are at work, afterwards it flows.
            patience = seconds if turn.packets else 3 * seconds
            with trio.fail_after(patience):
                message = await channel.receive()
            turn.take(message, trio.current_time())
    except trio.TooSlowError:
        return
    except Ended as ended:
        turn.end(ended)


async def _ask_question(channel: Channel, turn: Turn, session: dict[str, Any]) -> None:
    try:
        if turn.client.speech is Speech.TEXT:
            await channel.send({**session, "type": "listen", "state": "detect", "text": WORDS})
            return
        mode = turn.client.speech.value
        await channel.send({**session, "type": "listen", "state": "start", "mode": mode})
        await _stream_clip(channel, turn)
        if turn.client.speech is Speech.MANUAL:
            await channel.send({**session, "type": "listen", "state": "stop"})
    except Ended as ended:
        turn.end(ended)


async def _stream_clip(channel: Channel, turn: Turn) -> None:
    """Send the clip as a microphone does; in `auto` mode silence follows until the server acts."""
    packets = clip(turn.client.frame_ms)
    silence = repeat(packets[-1]) if turn.client.speech is Speech.AUTO else ()
    due = trio.current_time()
    for number, packet in enumerate(chain(packets, silence)):
        await channel.send(framed(packet, turn.client.framing))
        due += turn.client.frame_ms / 1000
        if number < len(packets):
            turn.asked = due
        with trio.move_on_at(due):
            await turn.reacted.wait()
            return


# --- OTA: requests and what is seen of them -----------------------------------------------------

_ORIGIN: Final = "http://127.0.0.1:8006"
_PREFLIGHT: Final = {"content-type", "device-id", "client-id"}


@dataclass(frozen=True)
class OtaClient:
    """One way to ask OTA."""

    key: str
    name: Text
    method: str = "POST"
    slash: bool = False
    """It asks with a slash at the end, whatever the address says."""


OTA_CLIENTS: Final = (
    OtaClient("ota-get", Text("OTA: a person's browser (GET)", "OTA：浏览器打开（GET）"), "GET"),
    OtaClient("ota-firmware", Text("OTA: firmware", "OTA：固件")),
    OtaClient("ota-again", Text("OTA: firmware, once more", "OTA：固件再次请求")),
    OtaClient("ota-bad-json", Text("OTA: a Wi-Fi name with a quote", "OTA：Wi-Fi 名带引号")),
    OtaClient("ota-sdk", Text("OTA: xiaozhi-sdk", "OTA：xiaozhi-sdk"), slash=True),
    OtaClient("ota-preflight", Text("OTA: page asks leave", "OTA：页面预检"), "OPTIONS"),
    OtaClient("ota-browser", Text("OTA: page in a browser", "OTA：浏览器页面")),
)


def ota_request(client: OtaClient, address: Address, papers: Papers) -> bytes:
    """The request as this kind of client sends it."""
    body = b"" if client.method != "POST" else _ota_body(client, papers)
    headers = {"Host": address.authority}
    if client.method == "OPTIONS":
        headers |= {
            "Origin": _ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(sorted(_PREFLIGHT)),
        }
    elif client.method == "POST":
        headers |= {
            "Device-Id": papers.device_id,
            "Client-Id": papers.client_id,
            "User-Agent": f"handshake-probe/{FIRMWARE_VERSION}",
            "Accept-Language": "zh-CN",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        headers |= {
            "ota-sdk": {"Serial-Number": ""},
            "ota-browser": {"Origin": _ORIGIN},
        }.get(client.key, {"Activation-Version": "1"})
    headers["Connection"] = "close"
    place = replace(address, path=address.path.rstrip("/") + "/") if client.slash else address
    lines = [f"{client.method} {place.target()} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _ota_body(client: OtaClient, papers: Papers) -> bytes:
    body = json.dumps(
        {
            "version": 2,
            "mac_address": papers.device_id,
            "uuid": papers.client_id,
            "application": {"name": "xiaozhi", "version": FIRMWARE_VERSION, "elf_sha256": "0" * 64},
            "board": {
                "type": "handshake-probe",
                "name": "handshake-probe",
                "ssid": "Home",
                "ip": "192.0.2.1",
                "mac": papers.device_id,
            },
        }
    )
    # Firmware does not escape the name of the Wi-Fi.
    return (body.replace("Home", 'The "Home"') if client.key == "ota-bad-json" else body).encode()


@dataclass
class OtaVisit:
    """What one OTA client saw."""

    client: OtaClient
    answer: Answer

    @property
    def document(self) -> dict[str, Any]:
        """The answer's JSON object; empty where it is none."""
        return self.answer.document() or {}

    def section(self, name: str) -> dict[str, Any]:
        """An object of the document; empty where it is missing or no object."""
        found = self.document.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def url(self) -> str:
        """The WebSocket address handed out, as it is; empty where there is none."""
        url = self.section("websocket").get("url")
        return url if isinstance(url, str) else ""

    @property
    def token(self) -> str:
        """The token handed out; empty where there is none."""
        token = self.section("websocket").get("token")
        return token if isinstance(token, str) else ""

    @property
    def authority(self) -> str:
        """Host and port as firmware's parser takes them: what stands before the first slash."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def places(self) -> Iterable[tuple[str, Any]]:
        """What firmware stores in its flash: members of `websocket` and `mqtt`."""
        return [*self.section("websocket").items(), *self.section("mqtt").items()]


# --- The rules: from symptom to cause to fix ----------------------------------------------------


@dataclass
class Survey:
    """All that has been seen so far: what a rule may ask for beside the one visit."""

    address: Address
    """What the user gave."""
    papers: Papers
    websocket: Address | None = None
    """Where the WebSocket is: the given address, or what OTA said."""
    token_from_ota: bool = False
    visits: dict[str, Visit] = field(default_factory=dict)
    ota: dict[str, OtaVisit] = field(default_factory=dict)
    speaks_tls: bool = False
    """TLS stands on a port whose address says `ws://`."""

    @property
    def asks_for_tokens(self) -> bool:
        """Whether a client without a token is turned away."""
        visit = self.visits.get("no-token")
        return visit is not None and not visit.let_in

    @property
    def has_ota(self) -> bool:
        """Whether OTA has answered firmware as it should."""
        visit = self.ota.get("ota-firmware")
        return visit is not None and bool(visit.document)

    def got_in(self, key: str) -> bool:
        """Whether this client was let in."""
        visit = self.visits.get(key)
        return visit is not None and visit.let_in


Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Rule(Generic[Seen]):
    """A symptom by which a cause is known, and what to change."""

    reason: str
    """A stable word."""
    verdict: Verdict
    applies: Callable[[Seen, Survey], bool]
    symptom: Text
    cause: Text
    fix: Text


def rule(
    reason: str,
    verdict: Verdict,
    applies: Callable[[Seen, Survey], bool],
    english: str,
    chinese: str,
) -> Rule[Seen]:
    """A rule from texts `symptom -> cause -> fix`; lines of the Chinese may break anywhere."""
    in_english = (" ".join(part.split()) for part in english.split("->"))
    in_chinese = (re.sub(r"\n *", "", part.strip()) for part in chinese.split("->"))
    symptom, cause, fix = map(Text, in_english, in_chinese)
    return Rule(reason, verdict, applies, symptom, cause, fix)


def first_that_applies(rules: Sequence[Rule[Seen]], seen: Seen, survey: Survey) -> list[Rule[Seen]]:
    """The one rule that says most; none where all is well."""
    return [rule for rule in rules if rule.applies(seen, survey)][:1]


def all_that_apply(rules: Sequence[Rule[Seen]], seen: Seen, survey: Survey) -> list[Rule[Seen]]:
    """Every rule that applies."""
    return [rule for rule in rules if rule.applies(seen, survey)]


FAULT, WARNING = Verdict.FAULT, Verdict.WARNING


def _status(visit: Visit) -> int:
    return visit.answer.status


def _kind(visit: Visit) -> Kind:
    return visit.answer.kind


def _by_query_only(visit: Visit, survey: Survey) -> bool:
    """Refused where the same papers in headers were not refused in this way."""
    firmware = survey.visits.get("firmware")
    return (
        visit.client.identity is Identity.QUERY
        and firmware is not None
        and not survey.got_in("query")
        and (
            firmware.let_in
            or (_status(visit) >= 400 and _status(firmware) not in {0, _status(visit)})
        )
    )


def _only_this(visit: Visit, survey: Survey, key: str) -> bool:
    """The client of this key is refused while firmware is let in."""
    return visit.client.key == key and survey.got_in("firmware")


SERVER_GONE: Final[Rule[Visit]] = rule(
    "server_gone",
    FAULT,
    lambda v, _: _kind(v) is Kind.UNREACHABLE,
    """the first connections worked, and now none can be made
    -> the server has stopped: one of the requests before, all of them harmless, ended it
    -> look at the end of the server's log; update the server, and let a service manager
       restart it""",
    """前几次能连上，之后连不上
    -> 服务器已停止：之前某个无害的请求使它退出
    -> 查看服务器日志末尾；升级服务器，并用服务管理器自动重启""",
)
LET_IN_RULES: Final[tuple[Rule[Visit], ...]] = (
    SERVER_GONE,
    rule(
        "tls_only_port",
        FAULT,
        lambda v, s: v.answer.is_tls or (_kind(v) is not Kind.HTTP and s.speaks_tls),
        """no HTTP answer to ws://, while TLS works on the port
        -> the port speaks TLS only
        -> use wss:// in the address""",
        """ws:// 没有 HTTP 应答，而该端口能建立 TLS
        -> 该端口只支持 TLS
        -> 地址改用 wss://""",
    ),
    rule(
        "query_http_500",
        FAULT,
        lambda v, s: _by_query_only(v, s) and _status(v) == 500,
        """HTTP 500 to clients that say who they are in the query only
        -> the server takes Device-Id from the headers and fails where it is missing, inside
           the WebSocket library: its own log stays empty, and the page, which cannot send
           headers, says WebSocket error
        -> update the server to one that reads device-id, client-id and authorization from the
           query too, or use a client that sends headers""",
        """仅用地址参数表明身份的客户端得到 HTTP 500
        -> 服务器只从请求头读取 Device-Id，缺少时在 WebSocket 库内部出错：服务器日志为空，而无
           法设置请求头的页面只显示 WebSocket error
        -> 升级服务器，使其也能从地址参数读取 device-id、client-id、authorization；或改用能发送
           请求头的客户端""",
    ),
    rule(
        "query_identity_unread",
        FAULT,
        lambda v, s: _by_query_only(v, s),
        """clients that say who they are in the query only are refused, firmware is not
        -> the server or the proxy before it reads the identity from headers only, or drops the
           query; a page in a browser cannot send headers on a WebSocket
        -> let the proxy pass the query on ($request_uri), and use a server that reads the
           identity from the query too""",
        """仅用地址参数的客户端被拒绝，固件则正常
        -> 服务器只从请求头读取身份，或其前面的代理丢掉了地址参数；浏览器页面无法
           为 WebSocket 设置请求头
        -> 让代理保留地址参数（$request_uri），并使用支持地址参数的服务器""",
    ),
    rule(
        "origin_refused",
        FAULT,
        lambda v, s: v.client.origin and s.got_in("query"),
        """a page is refused, the same request without Origin is not
        -> the server or proxy takes pages of certain origins only
        -> allow the page's origin, or every origin, in the server or proxy""",
        """浏览器页面被拒绝，去掉 Origin 的相同请求正常
        -> 服务器或代理只允许特定来源的页面
        -> 在服务器或代理中放行该页面的来源（Origin）""",
    ),
    rule(
        "header_case",
        FAULT,
        lambda v, s: _only_this(v, s, "upper-case"),
        """upper-case header names are refused
        -> the server compares header names letter by letter; HTTP says that their case does
           not matter, and proxies change it
        -> update the server""",
        """大写的请求头名称被拒绝
        -> 服务器区分请求头名称的大小写；HTTP 规定不区分，代理也会改变大小写
        -> 升级服务器""",
    ),
    rule(
        "connection_list_unread",
        FAULT,
        lambda v, s: _only_this(v, s, "keep-alive"),
        """`Connection: keep-alive, Upgrade` is not upgraded, `Connection: Upgrade` is
        -> the server compares the whole header with `upgrade`; it is a list of words, and
           Firefox and some proxies send two
        -> update the server; meanwhile use another browser, or let the proxy send `Connection:
           upgrade`""",
        """`Connection: keep-alive, Upgrade` 无法升级，`Connection: Upgrade` 可以
        -> 服务器把整个请求头与 `upgrade` 比较；它其实是列表，Firefox 和部分代理会发送两项
        -> 升级服务器；临时办法是换浏览器，或让代理发送 `Connection: upgrade`""",
    ),
    rule(
        "bad_gateway",
        FAULT,
        lambda v, _: _status(v) in {502, 503, 504},
        """HTTP 502, 503 or 504
        -> a proxy answers, and the server behind it does not; or the server is full
        -> start the server, check the address and port in the proxy, and its limits""",
        """HTTP 502、503 或 504
        -> 代理有应答，但其后的服务器没有；或服务器已满
        -> 启动服务器，检查代理中的地址、端口和连接数限制""",
    ),
    rule(
        "http_500",
        FAULT,
        lambda v, _: _status(v) >= 500,
        """HTTP 500 to every client
        -> the server fails while it handles the handshake
        -> look for an exception in the server's log at this time; update the server""",
        """所有客户端都得到 HTTP 500
        -> 服务器在处理握手时出错
        -> 在服务器日志中查找此刻的异常；升级服务器""",
    ),
    rule(
        "ota_port_mismatch",
        FAULT,
        lambda v, s: (
            s.address.is_ota
            and s.websocket is not None
            and s.websocket.authority == s.address.authority
            and _kind(v) is Kind.HTTP
            and not v.answer.upgraded
        ),
        """OTA hands out its own port for the WebSocket, and no WebSocket is there
        -> the WebSocket has a port of its own (8000 as a rule; OTA has 8003 or 8002)
        -> correct the WebSocket address in the server's configuration (server.websocket_url)""",
        """OTA 下发的 WebSocket 端口就是 OTA 端口，而那里没有 WebSocket
        -> WebSocket 使用另一个端口（通常 8000；OTA 为 8003 或 8002）
        -> 修正服务器配置中的 WebSocket 地址（server.websocket_url）""",
    ),
    rule(
        "token_needed",
        FAULT,
        lambda v, s: v.about_token and not s.papers.token,
        """refused for want of a token
        -> the server asks for a token and the probe has none
        -> probe the OTA address, which hands one out, or give --token with the --device-id and
           --client-id it was made for""",
        """因缺少令牌被拒绝
        -> 服务器要求令牌，而探测工具没有
        -> 改为探测会下发令牌的 OTA 地址，或用 --token 并配上对应的 --device-id、--client-id""",
    ),
    rule(
        "token_refused",
        FAULT,
        lambda v, _: v.about_token,
        """refused though a token was sent
        -> the token is expired, or was made for another device id or client id, or with
           another secret than the WebSocket server has
        -> fetch a new token from OTA with the same ids; where OTA and WebSocket are two
           programs, give both the same secret and the right time""",
        """带了令牌仍被拒绝
        -> 令牌已过期，或属于其他设备/客户端标识，或签发密钥与 WebSocket 服务器不同
        -> 用相同标识从 OTA 重新获取；若 OTA 与 WebSocket 是两个程序，使其密钥一致、时钟准确""",
    ),
    rule(
        "redirected",
        FAULT,
        lambda v, _: 300 <= _status(v) < 400,
        """a redirect (3xx)
        -> the address has moved, often to TLS; neither firmware nor browsers follow
        -> use the address the redirect names""",
        """重定向（3xx）
        -> 地址已转移（常见为转向 TLS）；固件和浏览器都不会跟随
        -> 使用重定向指向的地址""",
    ),
    rule(
        "no_websocket_at_path",
        FAULT,
        lambda v, _: _status(v) == 404,
        """HTTP 404
        -> there is no WebSocket at this path
        -> use the path of the server, /xiaozhi/v1/ as a rule; check the proxy's location""",
        """HTTP 404
        -> 该路径没有 WebSocket
        -> 使用服务器的路径（通常为 /xiaozhi/v1/）；检查代理的 location""",
    ),
    rule(
        "upgrade_lost",
        FAULT,
        lambda v, _: _status(v) in {200, 204, 400, 405, 426},
        """an ordinary HTTP answer (200, 400, 405, 426) instead of 101
        -> the request does not reach the WebSocket as an upgrade: a proxy drops Upgrade and
           Connection, or the address is that of a web page or OTA
        -> in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
           proxy_set_header Connection upgrade; and check the port""",
        """得到普通 HTTP 应答（200、400、405、426）而不是 101
        -> 请求没有作为升级到达 WebSocket：代理去掉了 Upgrade 和 Connection，或这是网页
           或 OTA 的地址
        -> nginx 中设置 proxy_http_version 1.1、
           proxy_set_header Upgrade $http_upgrade、
           proxy_set_header Connection upgrade，并检查端口""",
    ),
    rule(
        "refused_otherwise",
        FAULT,
        lambda v, _: _kind(v) is Kind.HTTP and not v.answer.upgraded,
        """another refusal (4xx)
        -> the server's answer says why
        -> do what the answer says""",
        """其他拒绝（4xx）
        -> 原因见服务器的应答
        -> 按应答内容处理""",
    ),
    rule(
        "hung_up_on_handshake",
        FAULT,
        lambda v, _: _kind(v) is Kind.HUNG_UP,
        """the connection ends without an answer to the handshake
        -> the server fails before it answers, or a firewall or proxy cuts the connection;
           firmware waits ten seconds for it
        -> look at the server's log at this time; try from the server's own machine to rule out
           what is in between""",
        """握手没有任何应答，连接直接断开
        -> 服务器在应答前出错，或防火墙、代理切断了连接；固件会为此等待十秒
        -> 查看服务器此刻的日志；在服务器本机再试，以排除中间设备""",
    ),
    rule(
        "handshake_unanswered",
        FAULT,
        lambda v, _: _kind(v) is Kind.SILENT,
        """connected, and never an answer
        -> the server hangs, or another program has the port, or a proxy waits for it
        -> check which program has the port (ss -ltnp), and restart it""",
        """能连上，但始终没有应答
        -> 服务器卡住，或端口属于其他程序，或代理在等待服务器
        -> 检查占用端口的程序（ss -ltnp）并重启""",
    ),
    rule(
        "not_http",
        FAULT,
        lambda v, _: _kind(v) is Kind.NOT_HTTP,
        """an answer that is no HTTP
        -> another kind of server has this port
        -> check address and port""",
        """应答不是 HTTP
        -> 该端口是其他类型的服务器
        -> 检查地址和端口""",
    ),
    rule(
        "broken_frames",
        FAULT,
        lambda v, _: v.ended is not None and v.ended.violation,
        """frames that RFC 6455 forbids
        -> the server or a proxy damages the WebSocket, such as by compression that nobody
           asked for
        -> switch compression off; try without the proxy""",
        """收到 RFC 6455 不允许的帧
        -> 服务器或代理破坏了 WebSocket，例如未经协商就压缩
        -> 关闭压缩；绕过代理再试""",
    ),
    rule(
        "turned_away",
        FAULT,
        lambda v, _: bool(v.told),
        """upgraded, and words in place of a hello
        -> the server's words say why, such as a device that is not bound
        -> do what the words say""",
        """升级成功，但收到的是提示而不是 hello
        -> 原因见提示，例如设备未绑定
        -> 按提示处理""",
    ),
    rule(
        "closed_before_hello",
        FAULT,
        lambda v, _: v.ended is not None,
        """upgraded, and closed before the server's hello
        -> the server refuses the client without a word, or fails at its hello; firmware waits
           ten seconds and says that the server timed out
        -> look at the server's log at this time; check token and device id""",
        """升级成功，但在服务器 hello 之前被关闭
        -> 服务器不作说明地拒绝了客户端，或在处理 hello 时出错；固件等待十秒后提示超时
        -> 查看服务器此刻的日志；检查令牌和设备标识""",
    ),
    rule(
        "hello_unanswered",
        FAULT,
        lambda *_: True,
        """upgraded, and never a hello
        -> the server waits for something, such as its models or a management server, before it
           answers; firmware gives up after ten seconds, the page after five
        -> look at the server's log for what it waits for; wait until its models are loaded""",
        """升级成功，但始终没有 hello
        -> 服务器在等待其他东西（如模型、管理后台）；固件等十秒、页面等五秒后放弃
        -> 从日志中查看它在等什么；等模型加载完成""",
    ),
)
"""For a client that should have been let in and was not: the first that applies."""


ADMISSION_RULES: Final[tuple[Rule[Visit], ...]] = (
    SERVER_GONE,
    rule(
        "any_token_accepted",
        FAULT,
        lambda v, s: v.let_in and v.client.welcome is Welcome.IF_NO_TOKENS and s.asks_for_tokens,
        """no client gets in without a token, and one with a token that proves nothing does
        -> the server looks whether there is a token, not whether it is right: anybody gets in
        -> update the server, and keep its port off the internet until then""",
        """没有令牌会被拒绝，而无效的令牌却能通过
        -> 服务器只检查有没有令牌，不检查对不对：任何人都能进入
        -> 升级服务器，在此之前不要把端口暴露到互联网""",
    ),
    rule(
        "token_not_asked_for",
        WARNING,
        lambda v, s: v.let_in and v.client.key == "no-token" and s.token_from_ota,
        """OTA hands out a token, and the WebSocket lets in who has none
        -> authentication is on in one part of the server and off in the other
        -> switch authentication on for the WebSocket too, or off for both""",
        """OTA 下发令牌，但没有令牌也能连接 WebSocket
        -> 服务器的一部分启用了认证，另一部分没有
        -> 让 WebSocket 也启用认证，或两者都关闭""",
    ),
    rule(
        "device_id_not_asked_for",
        WARNING,
        lambda v, _: v.let_in and v.client.key == "no-device-id",
        """let in without a device id
        -> the server cannot tell devices apart: they may share memory and settings
        -> see that every client sends a device id; update the server""",
        """没有设备标识也能连接
        -> 服务器无法区分设备：它们可能共用记忆和设置
        -> 确保每个客户端都发送设备标识；升级服务器""",
    ),
    rule(
        "refused_with_500",
        WARNING,
        lambda v, _: not v.let_in and _status(v) >= 500,
        """refused with HTTP 500
        -> the refusal is an exception in the server, so that neither the client nor the log
           says why
        -> update the server""",
        """以 HTTP 500 拒绝
        -> 拒绝是服务器内部异常，客户端和日志都看不到原因
        -> 升级服务器""",
    ),
    rule(
        "refused_by_hanging_up",
        WARNING,
        lambda v, _: not v.let_in and _kind(v) in {Kind.HUNG_UP, Kind.NOT_HTTP},
        """refused by ending the connection
        -> nothing says why, and firmware waits ten seconds for an answer
        -> update the server; look at its log""",
        """以断开连接的方式拒绝
        -> 没有任何说明，固件会等待应答十秒
        -> 升级服务器；查看其日志""",
    ),
    rule(
        "refused_by_silence",
        WARNING,
        lambda v, _: (
            not v.let_in
            and (_kind(v) is Kind.SILENT or (v.answer.upgraded and not v.told and v.ended is None))
        ),
        """refused by never answering
        -> the server keeps the connection and says nothing; the client waits for its own time
           limit
        -> update the server; look at its log""",
        """以不应答的方式拒绝
        -> 服务器保持连接但不说话，客户端只能等到自己超时
        -> 升级服务器；查看其日志""",
    ),
    rule(
        "refused_silently",
        WARNING,
        lambda v, _: (
            not v.let_in
            and v.answer.upgraded
            and not v.told
            and v.ended is not None
            and not v.ended.reason
        ),
        """refused by a close after the upgrade, without a reason
        -> nothing tells the user why, and firmware waits ten seconds for a hello
        -> update the server to one that answers 401 before the upgrade, with a reason; look at
           its log""",
        """升级后不说明原因就关闭
        -> 用户看不到原因，固件会等待 hello 十秒
        -> 升级服务器，使其在升级前以 401 和原因应答；查看其日志""",
    ),
    rule(
        "refused_after_upgrade",
        WARNING,
        lambda v, _: not v.let_in and v.answer.upgraded and v.client.identity is Identity.HEADERS,
        """a device is refused after the upgrade, with words
        -> firmware does not read a refusal there and waits ten seconds for a hello
        -> update the server to one that refuses devices before the upgrade (401)""",
        """设备在升级之后才被拒绝（有说明）
        -> 固件不会读取这样的拒绝，会等待 hello 十秒
        -> 升级服务器，使其在升级前拒绝设备（401）""",
    ),
    rule(
        "browser_cannot_read_refusal",
        WARNING,
        lambda v, _: not v.let_in and not v.answer.upgraded and not v.client.reads_refusals,
        """a page with a wrong token is refused before the upgrade
        -> browsers hide the answer to a refused upgrade: the page can only say WebSocket error
        -> update the server to one that lets pages in, tells them in a message, and closes;
           meanwhile read its log""",
        """令牌错误的页面在升级前被拒绝
        -> 浏览器隐藏了被拒绝的升级应答：页面只能显示 WebSocket error
        -> 升级服务器，使其先接入页面、用消息说明原因再关闭；目前请查看日志""",
    ),
)
"""For a client that may be refused: whether it should have been, and in a way it can read."""

UPGRADE_RULES: Final[tuple[Rule[Visit], ...]] = (
    rule(
        "accept_header_wrong",
        FAULT,
        lambda v, _: (
            v.answer.upgraded and v.answer.header("sec-websocket-accept") != v.expected_accept
        ),
        """101 with a wrong Sec-WebSocket-Accept, or none
        -> the server or a proxy makes up the answer; firmware does not look, browsers and
           libraries refuse
        -> update the server; try without the proxy""",
        """101 应答的 Sec-WebSocket-Accept 错误或缺失
        -> 服务器或代理伪造了应答；固件不检查，浏览器和各种库会拒绝
        -> 升级服务器；绕过代理再试""",
    ),
    rule(
        "extension_not_asked_for",
        FAULT,
        lambda v, _: v.answer.upgraded and v.answer.header("sec-websocket-extensions") is not None,
        """101 with an extension that was not offered
        -> the server compresses whoever connects; firmware knows no extension
        -> switch permessage-deflate off""",
        """101 应答启用了客户端未提供的扩展
        -> 服务器对所有连接启用压缩；固件不支持任何扩展
        -> 关闭 permessage-deflate""",
    ),
)
"""For every answer to an upgrade."""

_OPUS_RATES: Final = {8000, 12000, 16000, 24000, 48000}
_FIRMWARE_FRAMES_MS: Final = {5, 10, 20, 40, 60, 80, 100, 120}

HELLO_RULES: Final[tuple[Rule[Visit], ...]] = (
    rule(
        "hello_without_transport",
        FAULT,
        lambda v, _: (v.hello or {}).get("transport") != "websocket",
        """the server's hello lacks `"transport": "websocket"`
        -> firmware restarts where the member is missing, and waits in vain where it is another
           word
        -> let the server send `"transport": "websocket"`""",
        """服务器 hello 缺少 `"transport": "websocket"`
        -> 缺少该字段时固件会重启，值不对时固件会一直等到超时
        -> 让服务器发送 `"transport": "websocket"`""",
    ),
    rule(
        "hello_without_session_id",
        FAULT,
        lambda v, _: not isinstance((v.hello or {}).get("session_id"), str),
        """the server's hello lacks `session_id`
        -> the page and xiaozhi-sdk wait for it and give up
        -> let the server send a session_id""",
        """服务器 hello 缺少 `session_id`
        -> 页面和 xiaozhi-sdk 等不到它就会放弃
        -> 让服务器发送 session_id""",
    ),
    rule(
        "hello_without_audio_params",
        FAULT,
        lambda v, _: (
            not v.client.origin
            and any(v.audio(name) is None for name in ("sample_rate", "frame_duration", "channels"))
        ),
        """the server's hello lacks `audio_params`, or a part of it
        -> xiaozhi-sdk waits for sample_rate, frame_duration and channels and gives up;
           firmware takes what an earlier server said
        -> let the server send all three""",
        """服务器 hello 缺少 `audio_params` 或其部分字段
        -> xiaozhi-sdk 等不到 sample_rate、frame_duration、channels 就放弃；固件会沿用之前服务
           器的值
        -> 让服务器发送这三个字段""",
    ),
    rule(
        "hello_audio_unplayable",
        FAULT,
        lambda v, _: (
            (v.audio("sample_rate") or 16000) not in _OPUS_RATES
            or (v.audio("frame_duration") or 60) not in _FIRMWARE_FRAMES_MS
        ),
        """the server's hello names a rate or packet length that firmware cannot play
        -> Opus knows 8, 12, 16, 24 and 48 kHz; firmware opens its decoder for 5, 10, 20, 40,
           60, 80, 100 or 120 ms, and stays silent otherwise
        -> set 24000 Hz or 16000 Hz, and 60 ms or 20 ms""",
        """服务器 hello 的采样率或包长固件无法播放
        -> Opus 只有 8、12、16、24、48 kHz；固件只支持 5、10、20、40、60、80、100、120 毫秒，否
           则没有声音
        -> 设为 24000 或 16000 Hz，60 或 20 毫秒""",
    ),
    rule(
        "hello_packets_too_long",
        FAULT,
        lambda v, _: (v.audio("frame_duration") or 0) > v.client.frame_ms and not v.client.origin,
        """the server announces longer packets than the client's own
        -> xiaozhi-sdk throws packets away that are longer than those it sends: it hears
           nothing
        -> update the server to one that heeds frame_duration of the client's hello, or set the
           client to 60 ms""",
        """服务器的包长超过客户端的包长
        -> xiaozhi-sdk 会丢弃比自己更长的包，因此没有声音
        -> 升级服务器，使其遵守客户端 hello 的 frame_duration；或把客户端设为 60 毫秒""",
    ),
    rule(
        "hello_late",
        WARNING,
        lambda v, _: v.hello_seconds > 5,
        """the server's hello takes more than 5 s
        -> the page gives up after five seconds, firmware after ten
        -> see what the server does before its hello, such as loading models""",
        """服务器 hello 超过 5 秒
        -> 页面等五秒、固件等十秒后放弃
        -> 查看服务器在 hello 之前做了什么，例如加载模型""",
    ),
)
"""For a hello that came: all that apply."""

_FIRMWARE_QUEUE_PACKETS: Final = 40

TURN_RULES: Final[tuple[Rule[Turn], ...]] = (
    rule(
        "closed_in_turn",
        FAULT,
        lambda t, _: t.ended is not None and not t.stopped,
        """the connection ends in the middle of a turn
        -> the server fails in the turn; one message it does not expect may be enough
        -> look for an exception in the server's log at this time; update the server""",
        """对话进行中连接断开
        -> 服务器在对话中出错；一条意外的消息就可能导致
        -> 在服务器日志中查找此刻的异常；升级服务器""",
    ),
    rule(
        "turn_failed",
        FAULT,
        lambda t, _: bool(t.alert) and not t.packets,
        """an alert in place of an answer
        -> an engine of the server failed; the alert says which
        -> check the keys, addresses and models of the engines in the server's configuration""",
        """收到 alert 而不是回答
        -> 服务器的某个引擎出错，见提示
        -> 检查服务器配置中各引擎的密钥、地址和模型""",
    ),
    rule(
        "text_unanswered",
        FAULT,
        lambda t, _: t.silent and t.client.speech is Speech.TEXT,
        """typed text is not answered at all
        -> the language model does not answer, or its models are still loading
        -> look at the server's log; check the language model's address and key""",
        """文字输入没有任何回应
        -> 语言模型没有应答，或模型仍在加载
        -> 查看服务器日志；检查语言模型的地址和密钥""",
    ),
    rule(
        "voice_unanswered",
        FAULT,
        lambda t, _: t.silent and t.client.speech is not Speech.TEXT,
        """speech is not answered at all
        -> the voice detector or the recogniser heard nothing or does not work, or the server
           decodes packets of another length than the client's hello says
        -> look at the server's log; check speech recognition, and try packets of 60 ms""",
        """语音没有任何回应
        -> 语音检测或识别没有听到或不工作，或服务器没有按客户端 hello 的包长解码
        -> 查看服务器日志；检查语音识别，并尝试 60 毫秒的包""",
    ),
    rule(
        "speech_not_understood",
        WARNING,
        lambda t, _: t.client.speech is not Speech.TEXT and t.stopped and not t.started,
        """speech ends with `tts stop` and nothing else
        -> the recogniser heard no words in a clear English sentence
        -> check language and model of speech recognition""",
        """语音之后只有 `tts stop`
        -> 识别引擎没有从清晰的英语句子中听出内容
        -> 检查语音识别的语言和模型""",
    ),
    rule(
        "tts_start_missing",
        FAULT,
        lambda t, _: t.early > 0,
        """audio before `tts start`, or without it
        -> firmware throws away what comes before
        -> let the server send `tts start` first""",
        """`tts start` 之前或没有它就发送音频
        -> 固件会丢弃此前的音频
        -> 让服务器先发送 `tts start`""",
    ),
    rule(
        "no_audio",
        FAULT,
        lambda t, _: t.started and not t.packets and not t.alert and not t.ended,
        """`tts start` without any audio
        -> the language model or the speech synthesis gave nothing: a wrong key, a used-up
           quota, a voice that does not exist, no route to the cloud
        -> look at the server's log; try the engines of speech and language one by one""",
        """有 `tts start` 但没有音频
        -> 语言模型或语音合成没有输出：密钥错误、额度用尽、音色不存在、连不上云服务
        -> 查看服务器日志；逐个检查语音合成和语言模型""",
    ),
    rule(
        "tts_stop_missing",
        FAULT,
        lambda t, _: t.started and not t.stopped and not t.aborted and not t.ended,
        """`tts start` without `tts stop`
        -> the turn died in the server; the device stays in speaking and hears nobody
        -> look for an exception in the server's log at this time; update the server""",
        """有 `tts start` 但没有 `tts stop`
        -> 对话在服务器中异常终止；设备停留在说话状态，不再听人说话
        -> 在服务器日志中查找此刻的异常；升级服务器""",
    ),
    rule(
        "abort_unanswered",
        FAULT,
        lambda t, _: t.aborted and not t.stopped and not t.ended,
        """`abort` without `tts stop` after it
        -> the server does not let itself be interrupted; the device stays in speaking
        -> update the server""",
        """`abort` 之后没有 `tts stop`
        -> 服务器不响应打断；设备停留在说话状态
        -> 升级服务器""",
    ),
    rule(
        "framing_ignored",
        FAULT,
        lambda t, _: t.misframed > 0,
        """audio comes in another framing than agreed
        -> the server does not know framing 2 and 3; firmware trusts the sizes in the frame and
           reads beyond its end
        -> let OTA send `"version": 1` in its websocket section, or update the server""",
        """音频不是约定的帧格式
        -> 服务器不支持帧格式 2、3；固件信任帧中的长度，会读取越界
        -> 让 OTA 的 websocket 部分发送 `"version": 1`，或升级服务器""",
    ),
    rule(
        "packets_too_long",
        FAULT,
        lambda t, _: t.longest_ms > t.packet_ms,
        """packets are longer than the server's hello says
        -> the decoder of a client is made for the length in the hello and refuses longer ones
        -> let the server announce the frame_duration that it encodes with""",
        """音频包比服务器 hello 声明的更长
        -> 客户端按 hello 的包长创建解码器，拒绝更长的包
        -> 让服务器声明实际编码的 frame_duration""",
    ),
    rule(
        "audio_ahead",
        FAULT,
        lambda t, _: t.ahead > _FIRMWARE_QUEUE_PACKETS,
        """audio comes faster than it can be played
        -> firmware holds 40 packets and drops what does not fit: words are missing
        -> let the server pace its packets in real time; update it""",
        """音频发送得比播放快得多
        -> 固件最多保存 40 个包，多出的会丢弃：说话会缺字
        -> 让服务器按实时速度发送；升级服务器""",
    ),
)
"""For a turn: all that apply."""

_FLASH_KEY_CHARACTERS: Final = 15
_FLASH_VALUE_BYTES: Final = 4000
_FIRMWARE_BODY_BYTES: Final = 8192
_VERSION: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


def _of(visit: OtaVisit, *keys: str) -> bool:
    return visit.client.key in {f"ota-{key}" for key in keys}


def _asking(visit: OtaVisit) -> bool:
    """A client that needs the document."""
    return _of(visit, "firmware", "sdk", "browser")


OTA_ANSWER_RULES: Final[tuple[Rule[OtaVisit], ...]] = (
    rule(
        "ota_redirected",
        FAULT,
        lambda v, _: _asking(v) and 300 <= v.answer.status < 400,
        """OTA answers with a redirect (3xx)
        -> firmware follows no redirect; often the slash at the end of the address is missing,
           or a proxy sends everybody to TLS
        -> enter the address the redirect names, or answer on both spellings""",
        """OTA 应答重定向（3xx）
        -> 固件不跟随重定向；常见原因是地址末尾少了斜杠，或代理强制转向 TLS
        -> 填写重定向指向的地址，或让两种写法都直接应答""",
    ),
    rule(
        "ota_unanswered",
        FAULT,
        lambda v, _: _asking(v) and v.answer.kind is not Kind.HTTP,
        """OTA gives no HTTP answer
        -> the server fails, hangs, or another program has the port
        -> look at the server's log; check address and port""",
        """OTA 没有 HTTP 应答
        -> 服务器出错或卡住，或端口属于其他程序
        -> 查看服务器日志；检查地址和端口""",
    ),
    rule(
        "ota_status",
        FAULT,
        lambda v, _: _asking(v) and v.answer.status != 200,
        """OTA answers with another status than 200
        -> no OTA is at this path, or the server or the proxy before it fails; firmware takes
           200 only
        -> check the address (/xiaozhi/ota/ as a rule) and the server's log""",
        """OTA 应答的状态不是 200
        -> 该路径没有 OTA，或服务器、代理出错；固件只接受 200
        -> 检查地址（通常为 /xiaozhi/ota/）和服务器日志""",
    ),
    rule(
        "ota_not_json",
        FAULT,
        lambda v, _: _asking(v) and v.answer.document() is None,
        """OTA answers with something else than a JSON object
        -> this is a web page or the WebSocket port, not OTA
        -> use the OTA address; to probe the WebSocket itself, begin the address with ws://""",
        """OTA 应答不是 JSON 对象
        -> 这是网页或 WebSocket 端口，不是 OTA
        -> 使用 OTA 地址；要探测 WebSocket，请以 ws:// 开头""",
    ),
    rule(
        "ota_body_rejected",
        FAULT,
        lambda v, s: _of(v, "bad-json") and s.has_ota and v.answer.document() is None,
        """OTA fails where the device's body is not valid JSON
        -> firmware does not escape the name of its Wi-Fi: one with a quote in it makes the
           body invalid
        -> update the server to one that knows the device by its headers; or rename the Wi-Fi""",
        """设备的请求体不是合法 JSON 时 OTA 出错
        -> 固件不转义 Wi-Fi 名称：名称中有引号时请求体就不合法
        -> 升级服务器，使其只凭请求头识别设备；或给 Wi-Fi 改名""",
    ),
    rule(
        "ota_preflight_refused",
        FAULT,
        lambda v, _: (
            (_of(v, "preflight") and not _preflight_allows(v.answer))
            or (
                _of(v, "browser")
                and v.answer.header("access-control-allow-origin") not in {"*", _ORIGIN}
            )
        ),
        """OTA does not allow pages of other origins (CORS)
        -> a browser asks leave before a page may send Device-Id, and hides every answer
           without Access-Control-Allow-Origin
        -> let OTA answer OPTIONS with Access-Control-Allow-Origin, -Methods (POST) and
           -Headers (content-type, device-id, client-id, authorization), and let a proxy pass
           OPTIONS on""",
        """OTA 不允许跨域页面（CORS）
        -> 浏览器在页面发送 Device-Id 前先预检，并隐藏没有 Access-Control-Allow-Origin 的应答
        -> 让 OTA 对 OPTIONS 应答 Access-Control-Allow-Origin、-Methods（POST）、
           -Headers（content-type、device-id、client-id、authorization），代理也要放行 OPTIONS""",
    ),
    rule(
        "ota_get_failed",
        WARNING,
        lambda v, _: _of(v, "get") and (v.answer.kind is not Kind.HTTP or v.answer.status >= 500),
        """a GET of the OTA address fails
        -> the server fails at what it does not expect
        -> look at the server's log; update the server""",
        """用 GET 打开 OTA 地址出错
        -> 服务器无法处理意外的请求
        -> 查看服务器日志；升级服务器""",
    ),
)
"""For every answer of OTA: the first that applies."""


def _preflight_allows(answer: Answer) -> bool:
    def words(name: str) -> set[str]:
        return {word.strip().lower() for word in (answer.header(name) or "").split(",")}

    headers, methods = words("access-control-allow-headers"), words("access-control-allow-methods")
    return (
        200 <= answer.status < 300
        and bool(words("access-control-allow-origin") & {"*", _ORIGIN})
        # POST is among the methods for which a browser needs no permission.
        and ("*" in headers or headers >= _PREFLIGHT)
        and bool(methods & {"", "*", "post"})
    )


def _fits_address(visit: OtaVisit) -> bool:
    return re.match(r"wss?://[^/?#]+/", visit.url) is not None


def _hits_colon_trap(visit: OtaVisit) -> bool:
    path = visit.url.partition("://")[2].partition("/")[2]
    return "[" in visit.authority or (":" not in visit.authority and ":" in path)


def _names_no_reachable_host(visit: OtaVisit, survey: Survey) -> bool:
    try:
        host = Address.parse(visit.url).host
    except AddressWrong:
        return False
    return is_unspecified(host) or (is_loopback(host) and host != survey.address.host)


OTA_DOCUMENT_RULES: Final[tuple[Rule[OtaVisit], ...]] = (
    rule(
        "ota_chunked",
        FAULT,
        lambda v, _: "chunked" in (v.answer.header("transfer-encoding") or "").lower(),
        """OTA answers in chunks, without Content-Length
        -> firmware loses the end of a chunked answer where it comes in two packets
        -> let the server send Content-Length; in nginx: proxy_buffering on, gzip off,
           chunked_transfer_encoding off""",
        """OTA 分块应答，没有 Content-Length
        -> 分块应答跨越两个数据包时，固件会丢失结尾
        -> 让服务器发送 Content-Length；nginx 中设
           置 proxy_buffering on、gzip off、chunked_transfer_encoding off""",
    ),
    rule(
        "ota_compressed",
        FAULT,
        lambda v, _: v.answer.header("content-encoding") not in {None, "identity"},
        """OTA answers compressed, unasked
        -> firmware cannot decompress
        -> switch gzip off for OTA in the proxy""",
        """OTA 未经请求就压缩应答
        -> 固件不支持解压
        -> 在代理中对 OTA 关闭 gzip""",
    ),
    rule(
        "ota_content_type",
        FAULT,
        lambda v, _: "application/json" not in (v.answer.header("content-type") or "").lower(),
        """OTA's answer is not `application/json`
        -> py-xiaozhi and xiaozhi-sdk refuse it
        -> let the server send `Content-Type: application/json`""",
        """OTA 应答不是 `application/json`
        -> py-xiaozhi 和 xiaozhi-sdk 会拒绝
        -> 让服务器发送 `Content-Type: application/json`""",
    ),
    rule(
        "ota_too_large",
        FAULT,
        lambda v, _: len(v.answer.body) >= _FIRMWARE_BODY_BYTES,
        """OTA's answer has 8 KiB or more
        -> firmware stops reading there and hangs
        -> shorten the answer to less than 6 KiB""",
        """OTA 应答达到 8 KiB
        -> 固件读到这里会卡住
        -> 把应答缩短到 6 KiB 以内""",
    ),
    rule(
        "ota_websocket_missing",
        FAULT,
        lambda v, _: not v.url,
        """OTA names no WebSocket address
        -> the server offers MQTT only, or the device is refused; pages and SDK clients need
           `websocket.url`
        -> set the WebSocket address in the server's configuration; read the answer""",
        """OTA 没有给出 WebSocket 地址
        -> 服务器只提供 MQTT，或拒绝了该设备；页面和 SDK 需要 `websocket.url`
        -> 在服务器配置中设置 WebSocket 地址；查看应答内容""",
    ),
    rule(
        "ota_token_missing",
        FAULT,
        lambda v, _: bool(v.url) and not isinstance(v.section("websocket").get("token"), str),
        """OTA's answer lacks `websocket.token`
        -> xiaozhi-sdk fails without the key, even where no token is needed
        -> let OTA send `"token": ""`""",
        """OTA 应答缺少 `websocket.token`
        -> 即使不需要令牌，没有该键 xiaozhi-sdk 也会出错
        -> 让 OTA 发送 `"token": ""`""",
    ),
    rule(
        "ota_token_unsendable",
        FAULT,
        lambda v, _: not is_sendable(v.token),
        """`websocket.token` has characters that no header can have
        -> a line break or a letter beyond ASCII ends the handshake of every client
        -> let OTA send printable ASCII""",
        """`websocket.token` 含有请求头不允许的字符
        -> 换行或非 ASCII 字符会使所有客户端握手失败
        -> 让 OTA 只发送可打印的 ASCII 字符""",
    ),
    rule(
        "ota_version_missing",
        WARNING,
        lambda v, _: bool(v.url) and v.section("websocket").get("version") not in (1, 2, 3),
        """OTA's answer lacks `websocket.version`
        -> a device that another server had set to framing 2 or 3 keeps it
        -> let OTA send `"version": 1`""",
        """OTA 应答缺少 `websocket.version`
        -> 曾被其他服务器设为帧格式 2、3 的设备会一直沿用
        -> 让 OTA 发送 `"version": 1`""",
    ),
    rule(
        "ota_mqtt_empty",
        FAULT,
        lambda v, _: (
            isinstance(v.document.get("mqtt"), dict) and not v.section("mqtt").get("endpoint")
        ),
        """OTA's answer has an `mqtt` object without an endpoint
        -> the mere presence of the object makes firmware choose MQTT, so that it never
           connects to the WebSocket
        -> leave `mqtt` out, or send null""",
        """OTA 应答有 `mqtt` 但没有 endpoint
        -> 只要有该对象，固件就选择 MQTT，永远不会连接 WebSocket
        -> 去掉 `mqtt`，或发送 null""",
    ),
    rule(
        "ota_mqtt_preferred",
        WARNING,
        lambda v, _: bool(v.section("mqtt").get("endpoint")),
        """OTA offers MQTT
        -> firmware prefers it to the WebSocket, which this probe tests
        -> where devices fail and this probe does not, test the MQTT gateway, or leave `mqtt`
           out""",
        """OTA 提供 MQTT
        -> 固件优先使用 MQTT，而本工具只测试 WebSocket
        -> 若设备失败而本工具正常，请检查 MQTT 网关，或去掉 `mqtt`""",
    ),
    rule(
        "ota_activation_null",
        FAULT,
        lambda v, _: "activation" in v.document and v.document["activation"] is None,
        """OTA's answer has `activation: null`
        -> py-xiaozhi takes the mere key for a device that is not activated, and waits
        -> leave the key out""",
        """OTA 应答中 `activation` 为 null
        -> py-xiaozhi 只要看到该键就认为设备未激活，一直等待
        -> 去掉该键""",
    ),
    rule(
        "ota_activation_pending",
        WARNING,
        lambda v, _: bool(v.document.get("activation")),
        """OTA asks for the device to be activated
        -> the server does not know this device id yet; it may refuse to talk until then
        -> enter the code in the server's console, or probe with --device-id of a known device""",
        """OTA 要求激活设备
        -> 服务器尚不认识该设备标识，激活前可能拒绝对话
        -> 在服务器后台输入激活码，或用 --device-id 指定已知设备""",
    ),
    rule(
        "ota_flash_limits",
        FAULT,
        lambda v, _: any(
            len(name) > _FLASH_KEY_CHARACTERS
            or (isinstance(value, str) and len(value.encode()) >= _FLASH_VALUE_BYTES)
            for name, value in v.places
        ),
        """a key in `websocket` or `mqtt` is longer than 15 characters, or a value has 4000 bytes
        -> firmware cannot store it in its flash and restarts, at every boot
        -> shorten the key or the value""",
        """`websocket` 或 `mqtt` 中的键超过 15 个字符，或值达到 4000 字节
        -> 固件无法写入闪存而重启，每次开机都会如此
        -> 缩短键或值""",
    ),
    rule(
        "ota_firmware_version",
        FAULT,
        lambda v, _: (
            "version" in v.section("firmware")
            and not _VERSION.fullmatch(str(v.section("firmware")["version"]))
        ),
        """`firmware.version` is not dotted integers
        -> firmware restarts over a version such as v1.2
        -> send a version such as 2.4.2, or leave `firmware` out""",
        """`firmware.version` 不是点分整数
        -> 遇到 v1.2 这样的版本固件会重启
        -> 发送 2.4.2 这样的版本，或去掉 `firmware`""",
    ),
    rule(
        "ota_server_time",
        WARNING,
        lambda v, _: (
            "server_time" in v.document
            and not (
                is_number(v.section("server_time").get("timestamp"))
                and v.section("server_time")["timestamp"] > 10**12
                and is_number(v.section("server_time").get("timezone_offset", 0))
            )
        ),
        """`server_time` is not milliseconds and minutes
        -> the device's clock will be wrong
        -> send timestamp in ms since 1970 and timezone_offset in minutes, as numbers""",
        """`server_time` 不是毫秒和分钟
        -> 设备时钟会出错
        -> timestamp 用 1970 年以来的毫秒数，timezone_offset 用分钟数，都是数字""",
    ),
    rule(
        "ota_url_malformed",
        FAULT,
        lambda v, _: bool(v.url) and not _fits_address(v),
        """the WebSocket address is not ws(s)://HOST:PORT/PATH
        -> firmware needs the slash behind host and port, and takes the rest literally
        -> correct the WebSocket address in the server's configuration""",
        """WebSocket 地址不是 ws(s)://主机:端口/路径 的形式
        -> 固件要求主机和端口后有斜杠，其余照字面使用
        -> 修正服务器配置中的 WebSocket 地址""",
    ),
    rule(
        "ota_url_colon",
        FAULT,
        lambda v, _: _hits_colon_trap(v),
        """the WebSocket address has a colon that is not before a port
        -> firmware takes the first colon after :// for the port separator: no IPv6 literal
           works, and none in the path where the port is left out
        -> write the port out, and use a name or IPv4""",
        """WebSocket 地址中有不是端口分隔符的冒号
        -> 固件把 :// 之后的第一个冒号当作端口分隔符：不支持 IPv6 字面地址；省略端口时路径中不
           能有冒号
        -> 写明端口，并使用域名或 IPv4""",
    ),
    rule(
        "ota_url_local",
        FAULT,
        _names_no_reachable_host,
        """the WebSocket address names localhost, 127.0.0.1 or 0.0.0.0
        -> to the device these are the device itself, or nothing
        -> put the server's address in the local network, or its public name, into the
           configuration (server.websocket_url)""",
        """WebSocket 地址是 localhost、127.0.0.1 或 0.0.0.0
        -> 对设备来说这些是设备自己，或无效地址
        -> 在配置中填写服务器的局域网地址或公网域名（server.websocket_url）""",
    ),
)
"""For the document that firmware gets: all that apply."""


def _differs(visit: OtaVisit, survey: Survey) -> bool:
    first = survey.ota.get("ota-firmware")
    return (
        _of(visit, "again")
        and first is not None
        and bool(first.document)
        and visit.section("websocket") != first.section("websocket")
    )


OTA_AGAIN_RULES: Final[tuple[Rule[OtaVisit], ...]] = (
    rule(
        "ota_answer_changes",
        WARNING,
        _differs,
        """OTA gives the same device another answer each time
        -> firmware writes each new address and token to its flash, which wears out
        -> let the server hand out the same token for a day""",
        """OTA 每次给同一设备不同的应答
        -> 固件会把每个新地址和令牌写入闪存，造成磨损
        -> 让服务器在一天内下发相同的令牌""",
    ),
)
"""For the second answer to the same device."""


@dataclass(frozen=True)
class Reach:
    """Whether a connection can be made at all."""

    error: Unreachable | None = None
    from_ota: bool = False
    """The address is not the user's but OTA's."""
    plain_http: bool = False
    """An address with TLS, and plain HTTP is what is spoken there."""


REACH_RULES: Final[tuple[Rule[Reach], ...]] = (
    rule(
        "plain_port",
        FAULT,
        lambda r, _: r.plain_http,
        """TLS fails, while plain HTTP works on the port
        -> the port does not speak TLS
        -> use ws:// (http://) in the address, or set up TLS on the server or a proxy""",
        """TLS 失败，而该端口能用普通 HTTP
        -> 该端口不支持 TLS
        -> 地址改用 ws://（http://），或在服务器、代理上配置 TLS""",
    ),
    rule(
        "certificate_untrusted",
        FAULT,
        lambda r, _: r.error is not None and r.error.untrusted,
        """the certificate is not trusted
        -> it is self-signed, expired, or for another name; firmware accepts certificates of
           public authorities only, for the very name in its address
        -> get a certificate of a public authority for this name, with its whole chain; or use
           ws:// in the local network""",
        """证书不受信任
        -> 证书为自签名、已过期，或属于其他域名；固件只接受公共机构为该域名签发的证书
        -> 为该域名申请公共机构的证书并安装完整证书链；或在局域网内使用 ws://""",
    ),
    rule(
        "tls_failed",
        FAULT,
        lambda r, _: r.error is not None and r.error.in_tls,
        """TLS fails
        -> client and server agree on no version or cipher, or the peer is no TLS server
        -> allow TLS 1.2 and 1.3; check the port""",
        """TLS 失败
        -> 双方没有共同的版本或加密套件，或对方不是 TLS 服务器
        -> 启用 TLS 1.2 和 1.3；检查端口""",
    ),
    rule(
        "ota_url_unreachable",
        FAULT,
        lambda r, _: r.error is not None and r.from_ota,
        """the WebSocket address that OTA hands out cannot be reached
        -> it has the address of a container, an old address of the machine, or a wrong port,
           or a firewall closes the port
        -> correct the WebSocket address in the server's configuration (server.websocket_url);
           open the port""",
        """OTA 下发的 WebSocket 地址无法连接
        -> 它是容器内地址、机器的旧地址或错误的端口，或端口被防火墙拦截
        -> 修正服务器配置中的 WebSocket 地址（server.websocket_url）；开放端口""",
    ),
    rule(
        "unreachable",
        FAULT,
        lambda r, _: r.error is not None,
        """no connection can be made
        -> the server does not run, listens on 127.0.0.1 only, has another address or port, or
           a firewall is in between
        -> start the server, let it listen on 0.0.0.0, check address, port and firewall""",
        """无法建立连接
        -> 服务器未运行、只监听 127.0.0.1、地址或端口不对，或被防火墙拦截
        -> 启动服务器，使其监听 0.0.0.0，检查地址、端口和防火墙""",
    ),
)
"""For the first connection: the first that applies."""

PLAIN_RULES: Final[tuple[Rule[Answer], ...]] = (
    rule(
        "plain_get_unanswered",
        WARNING,
        lambda a, _: a.kind is not Kind.HTTP or a.status >= 500,
        """a plain GET of the WebSocket address gets no answer
        -> who opens the address in a browser to see whether the server runs learns nothing
        -> update the server""",
        """普通 GET 访问 WebSocket 地址没有应答
        -> 用浏览器打开地址检查服务器是否运行时，得不到任何信息
        -> 升级服务器""",
    ),
)
TLS_RULES: Final[tuple[Rule[bool], ...]] = (
    rule(
        "tls_hello_unanswered",
        WARNING,
        lambda waits, _: waits,
        """wss:// on the ws:// port is kept waiting
        -> the server waits for HTTP and never hangs up; the client learns of its mistake by
           its own time limit
        -> update the server""",
        """在 ws:// 端口上使用 wss:// 会一直等待
        -> 服务器一直等待 HTTP 而不断开，客户端只能等到自己超时
        -> 升级服务器""",
    ),
)

RULES: Final[dict[str, Rule[Any]]] = {
    rule.reason: rule
    for rules in (
        REACH_RULES,
        OTA_ANSWER_RULES,
        OTA_DOCUMENT_RULES,
        OTA_AGAIN_RULES,
        LET_IN_RULES,
        UPGRADE_RULES,
        HELLO_RULES,
        ADMISSION_RULES,
        PLAIN_RULES,
        TLS_RULES,
        TURN_RULES,
    )
    for rule in rules
}
"""Every reason that the probe knows."""


# --- The report ---------------------------------------------------------------------------------

_MARKS: Final = {
    Verdict.OK: Text("ok", "正常"),
    Verdict.WARNING: Text("warning", "注意"),
    Verdict.FAULT: Text("FAULT", "故障"),
    Verdict.SKIPPED: Text("skipped", "跳过"),
}
_SHOWN_CHARACTERS: Final = 100
_TEXT_WIDTH: Final = 80


@dataclass(frozen=True)
class Row:
    """One step and how it went."""

    step: str
    """A stable word."""
    name: Text
    verdict: Verdict
    answered: Text
    """What the server answered, safe to print."""
    milliseconds: float | None = None
    """Until the server's hello; in a turn from the question's end until the first sound."""
    reasons: tuple[str, ...] = ()
    status: int | None = None
    """HTTP status, where one came."""


@dataclass(frozen=True)
class Report:
    """All rows."""

    url: str
    papers: Papers
    rows: list[Row] = field(default_factory=list)

    def findings(self) -> dict[str, list[Row]]:
        """Reasons with the steps that show them, faults first."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            for reason in row.reasons:
                found.setdefault(reason, []).append(row)
        order = (FAULT, WARNING)
        return dict(sorted(found.items(), key=lambda item: order.index(RULES[item[0]].verdict)))

    @property
    def exit_status(self) -> int:
        """0, 1 or 2, see the module."""
        if any("unreachable" in row.reasons for row in self.rows):
            return 2
        return int(any(row.verdict is FAULT for row in self.rows))

    def as_json(self, language: str) -> dict[str, Any]:
        """The whole report; words of the reasons and steps are stable, texts are not."""
        return {
            "url": self.url,
            "device_id": self.papers.device_id,
            "client_id": self.papers.client_id,
            "exit_status": self.exit_status,
            "steps": [
                {
                    "step": row.step,
                    "client": row.name.of(language),
                    "verdict": row.verdict.value,
                    "answered": row.answered.of(language),
                    "status": row.status,
                    "milliseconds": row.milliseconds and round(row.milliseconds, 1),
                    "reasons": list(row.reasons),
                }
                for row in self.rows
            ],
            "findings": [
                {
                    "reason": reason,
                    "verdict": RULES[reason].verdict.value,
                    "steps": [row.step for row in rows],
                    "symptom": RULES[reason].symptom.of(language),
                    "cause": RULES[reason].cause.of(language),
                    "fix": RULES[reason].fix.of(language),
                }
                for reason, rows in self.findings().items()
            ],
        }


def shown(text: str, token: str = "") -> str:
    """Text of a peer on one line, without control characters and without our token."""
    if token:
        text = text.replace(token, "…")
    text = " ".join(text.split())
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def describe_answer(answer: Answer, token: str = "") -> Text:
    """An HTTP answer, or what came in place of it."""
    if answer.kind is Kind.HTTP:
        words = f"HTTP {answer.status}"
        body = "" if answer.upgraded else shown(answer.body.decode("utf-8", "replace"), token)
        said = f"{words}: {body}" if body else words
        return Text(said, said)
    if answer.kind is Kind.SILENT:
        return Text(f"no answer in {answer.seconds:.1f} s", f"{answer.seconds:.1f} 秒无应答")
    if answer.kind is Kind.HUNG_UP:
        return Text("hung up without an answer", "没有应答就断开")
    if answer.kind is Kind.UNREACHABLE:
        return Text(f"no connection: {answer.detail}", f"无法连接：{answer.detail}")
    if answer.is_tls:
        return Text("a TLS record, no HTTP", "TLS 数据，不是 HTTP")
    return Text(
        f"no HTTP: {shown(repr(answer.body[:24]))}", f"不是 HTTP：{shown(repr(answer.body[:24]))}"
    )


def describe_ota(visit: OtaVisit) -> Text:
    """The part of an OTA answer that matters, or what came in place of it."""
    if not visit.url:
        return describe_answer(visit.answer, visit.token)
    version = visit.section("websocket").get("version")
    address = shown(visit.url, visit.token)
    said = f"HTTP {visit.answer.status}: {address}, version {shown(str(version))}"
    if visit.token:
        return Text(f"{said}, a token", f"{said}，有令牌")
    return Text(f"{said}, no token", f"{said}，无令牌")


def describe_visit(visit: Visit, token: str = "") -> Text:
    """How far a client came."""
    if not visit.answer.upgraded:
        return describe_answer(visit.answer, token)
    if visit.hello is None:
        words = [f"“{shown(visit.told, token)}”"] if visit.told else []
        words += [_ending(visit.ended, token)] if visit.ended else []
        if not words:
            return Text("101, no hello", "101，没有 hello")
        return Text(", ".join(["101", *words]), "，".join(["101", *words]))
    if visit.turn is not None:
        return _describe_turn(visit.turn, token)
    rate, duration = visit.audio("sample_rate"), visit.audio("frame_duration")
    if rate is None or duration is None:
        return Text("101, hello", "101，hello")
    return Text(f"101, hello: {rate} Hz, {duration} ms", f"101，hello：{rate} Hz，{duration} 毫秒")


def _ending(ended: Ended, token: str) -> str:
    return f"close {ended.code} {shown(ended.reason, token)}".rstrip()


def _describe_turn(turn: Turn, token: str) -> Text:
    english, chinese = [], []
    if turn.heard:
        heard = shown(turn.heard, token)
        english.append(f"heard “{heard}”")
        chinese.append(f"听到“{heard}”")
    if turn.alert:
        alert = shown(turn.alert, token)
        english.append(f"alert “{alert}”")
        chinese.append(f"提示“{alert}”")
    english.append(f"{turn.packets} packets")
    chinese.append(f"{turn.packets} 个音频包")
    if turn.aborted:
        english.append("aborted")
        chinese.append("打断")
    if turn.stopped:
        english.append("tts stop")
        chinese.append("tts stop")
    if turn.ended:
        english.append(_ending(turn.ended, token))
        chinese.append(_ending(turn.ended, token))
    return Text(", ".join(english), "，".join(chinese))


def width(text: str) -> int:
    """Columns on a terminal: Chinese letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrapped(text: str, first: str, indent: str) -> str:
    """The text in lines of limited width; Chinese breaks anywhere."""
    lines, line = [], first
    for piece in re.findall(r"[\x21-\u02ff]+ ?|.", text):
        if width(line + piece.rstrip()) > _TEXT_WIDTH:
            lines.append(line.rstrip())
            line = indent
        line += piece
    return "\n".join([*lines, line.rstrip()])


def row_line(row: Row, language: str) -> str:
    """One line of the table."""
    mark, name = _MARKS[row.verdict].of(language), row.name.of(language)
    time_taken = "" if row.milliseconds is None else f"{row.milliseconds:.0f} ms"
    return (
        f"{mark}{' ' * (8 - width(mark))} {name}{' ' * max(0, 34 - width(name))} "
        f"{time_taken:>8}  {row.answered.of(language)}"
    ).rstrip()


def findings_text(report: Report, language: str) -> str:
    """The findings, for a person."""
    found = report.findings()
    if not found:
        return Text(
            "No fault found: every kind of client gets through.",
            "没有发现故障：各类客户端都能正常使用。",
        ).of(language)
    because, change = Text("cause", "原因").of(language), Text("fix", "处理").of(language)
    blocks = []
    for reason, rows in found.items():
        rule = RULES[reason]
        indent = "    "
        lines = [
            f"{_MARKS[rule.verdict].of(language)}  {reason}  ({', '.join(r.step for r in rows)})",
            wrapped(rule.symptom.of(language), indent, indent),
            wrapped(rule.cause.of(language), f"{indent}{because}: ", indent * 2),
            wrapped(rule.fix.of(language), f"{indent}{change}: ", indent * 2),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


# --- The survey ---------------------------------------------------------------------------------

_TLS_NAME: Final = Text("wss:// on the ws:// port", "在 ws:// 端口使用 wss://")
_REACH_NAME: Final = Text("connection to {}", "连接 {}")
_HASTE_SECONDS: Final = 2.0
"""The longest wait once one client has waited in vain, and where an answer is optional."""


@dataclass
class Surveyor:
    """Sends all clients and judges what they see, row by row."""

    address: Address
    papers: Papers
    seconds: float
    quick: bool
    insecure: bool
    tell: Callable[[Row], None]
    trusting: ssl.SSLContext
    unverified: ssl.SSLContext
    verify: bool = True

    def __post_init__(self) -> None:
        self.survey = Survey(self.address, self.papers)
        self.report = Report(str(self.address), self.papers)

    async def run(self) -> Report:
        """Everything there is to ask."""
        if self.address.is_ota:
            await self._survey_ota()
        else:
            await self._survey_websocket(self.address)
        return self.report

    def _row(
        self,
        step: str,
        name: Text,
        answered: Text,
        seconds: float | None = None,
        rules: Iterable[Rule[Any]] = (),
        status: int = 0,
    ) -> None:
        found = tuple(rules)
        verdicts = {rule.verdict for rule in found}
        verdict = FAULT if FAULT in verdicts else WARNING if verdicts else Verdict.OK
        row = Row(
            step,
            name,
            verdict,
            answered,
            None if seconds is None else seconds * 1000,
            tuple(rule.reason for rule in found),
            status or None,
        )
        self.report.rows.append(row)
        self.tell(row)

    def _skip(self, clients: Iterable[Client], why: Text) -> None:
        for client in clients:
            row = Row(client.key, client.name, Verdict.SKIPPED, why)
            self.report.rows.append(row)
            self.tell(row)

    def _dialler(self, address: Address) -> Dialler:
        return Dialler(address, self.seconds, self.trusting, self.unverified)

    # Reach

    async def _reach(self, step: str, address: Address) -> Dialler | None:
        """A dialler that works; None where the address leads nowhere."""
        dialler = self._dialler(address)
        self.verify = not self.insecure
        began = trio.current_time()
        reach = Reach(from_ota=self.address.is_ota and not address.is_ota)
        try:
            async with dialler.open(verify=self.verify):
                answered = Text("connected", "已连接")
        except Unreachable as error:
            answered = Text(shown(str(error)), shown(str(error)))
            plain = error.in_tls and not error.untrusted and await self._speaks_plain(dialler)
            reach = replace(reach, error=error, plain_http=plain)
        rules = first_that_applies(REACH_RULES, reach, self.survey)
        name = Text(
            *(text.format(f"{address.scheme}://{address.authority}") for text in _REACH_NAME)
        )
        self._row(step, name, answered, trio.current_time() - began, rules)
        if reach.error is not None and not reach.error.untrusted:
            return None
        self.verify = self.verify and reach.error is None
        return dialler

    async def _speaks_plain(self, dialler: Dialler) -> bool:
        request = f"GET / HTTP/1.1\r\nHost: {dialler.address.authority}\r\n\r\n".encode("ascii")
        try:
            async with dialler.open(secure=False) as stream:
                answer = await ask(stream, request, seconds=self._haste)
        except Unreachable:
            return False
        return answer.kind is Kind.HTTP

    @property
    def _haste(self) -> float:
        return min(self.seconds, _HASTE_SECONDS)

    # OTA

    async def _survey_ota(self) -> None:
        dialler = await self._reach("ota-reach", self.address)
        if dialler is None:
            return
        for client in OTA_CLIENTS:
            visit = await self._ask_ota(dialler, client)
            rules = first_that_applies(OTA_ANSWER_RULES, visit, self.survey)
            if not rules and client.key == "ota-firmware":
                rules = all_that_apply(OTA_DOCUMENT_RULES, visit, self.survey)
            rules = rules or first_that_applies(OTA_AGAIN_RULES, visit, self.survey)
            self.survey.ota[client.key] = visit
            answer = visit.answer
            self._row(
                client.key,
                client.name,
                describe_ota(visit),
                answer.seconds,
                rules,
                answer.status,
            )
        await self._follow(self.survey.ota["ota-firmware"])

    async def _ask_ota(self, dialler: Dialler, client: OtaClient) -> OtaVisit:
        request = ota_request(client, self.address, self.papers)
        try:
            async with dialler.open(verify=self.verify) as stream:
                return OtaVisit(client, await ask(stream, request, seconds=self.seconds))
        except Unreachable as error:
            return OtaVisit(client, Answer(Kind.UNREACHABLE, detail=str(error)))

    async def _follow(self, visit: OtaVisit) -> None:
        """On to the WebSocket that OTA names, with the token that it hands out."""
        try:
            address = Address.parse(visit.url)
        except AddressWrong:
            return
        if address.is_ota:
            return
        self.survey.token_from_ota = bool(visit.token)
        if is_sendable(visit.token) and not self.papers.token:
            self.papers = self.survey.papers = replace(self.papers, token=visit.token)
        await self._survey_websocket(address)

    # WebSocket

    async def _survey_websocket(self, address: Address) -> None:
        self.survey.websocket = address
        dialler = await self._reach("reach", address)
        if dialler is None:
            return
        visitor = Visitor(dialler, self.papers, self.verify)
        if not address.secure:
            await self._try_tls(dialler)
        await self._get_plainly(dialler)
        patience = self.seconds
        for client in CLIENTS:
            visit = await self._send(visitor, client, patience)
            if client.key == "firmware" and not visit.let_in:
                patience = self._haste
        firmware = self.survey.visits["firmware"]
        if firmware.let_in or firmware.about_token:
            for client in (*TOKEN_CLIENTS, *STRAY_CLIENTS):
                if client.origin and not self.survey.got_in("browser"):
                    self._skip([client], Text("no page is let in", "页面未能接入"))
                else:
                    await self._send(visitor, client, patience)
        else:
            why = Text("firmware is not let in", "固件未能接入")
            self._skip((*TOKEN_CLIENTS, *STRAY_CLIENTS), why)
        if not firmware.let_in:
            self._skip(TURN_CLIENTS, Text("firmware is not let in", "固件未能接入"))
            return
        for client in TURN_CLIENTS:
            if self.quick and client.key not in QUICK_TURNS:
                self._skip([client], Text("left out by --quick", "--quick 模式略过"))
            else:
                await self._send(visitor, client, patience)

    async def _send(self, visitor: Visitor, client: Client, seconds: float) -> Visit:
        visit = await visitor.visit(client, seconds)
        self.survey.visits[client.key] = visit
        taken = visit.answer.seconds + visit.hello_seconds
        if visit.turn is not None:
            first = visit.turn.first_audio
            taken = (trio.current_time() if first is None else first) - visit.turn.asked
        described = describe_visit(visit, self.papers.token)
        self._row(
            client.key, client.name, described, taken, self._judge(visit), visit.answer.status
        )
        return visit

    def _judge(self, visit: Visit) -> list[Rule[Any]]:
        """The rules that apply to what one client saw."""
        rules: list[Rule[Any]] = []
        if visit.client.welcome is Welcome.IN:
            if not visit.let_in:
                rules += first_that_applies(LET_IN_RULES, visit, self.survey)
        else:
            rules += first_that_applies(ADMISSION_RULES, visit, self.survey)
        rules += all_that_apply(UPGRADE_RULES, visit, self.survey)
        if visit.let_in:
            rules += all_that_apply(HELLO_RULES, visit, self.survey)
        if visit.turn is not None:
            rules += all_that_apply(TURN_RULES, visit.turn, self.survey)
        return rules

    async def _try_tls(self, dialler: Dialler) -> None:
        began = trio.current_time()
        hasty = replace(dialler, seconds=self._haste)
        answered, waits = Text("TLS works", "TLS 可用"), False
        try:
            async with hasty.open(secure=True, verify=False):
                self.survey.speaks_tls = True
        except Unreachable as error:
            answered = Text(shown(str(error)), shown(str(error)))
            waits = trio.current_time() - began >= self._haste
        rules = first_that_applies(TLS_RULES, waits, self.survey)
        self._row("tls", _TLS_NAME, answered, trio.current_time() - began, rules)

    async def _get_plainly(self, dialler: Dialler) -> None:
        address = dialler.address
        request = (
            f"GET {address.path} HTTP/1.1\r\nHost: {address.authority}\r\nAccept: */*\r\n\r\n"
        ).encode("ascii")
        try:
            async with dialler.open(verify=self.verify) as stream:
                answer = await ask(stream, request, seconds=self._haste)
        except Unreachable as error:
            answer = Answer(Kind.UNREACHABLE, detail=str(error))
        # A port with TLS only is told by the clients, which it keeps out.
        rules = (
            [] if self.survey.speaks_tls else first_that_applies(PLAIN_RULES, answer, self.survey)
        )
        described = describe_answer(answer, self.papers.token)
        name = Text("plain GET", "普通 GET")
        self._row("plain-get", name, described, answer.seconds, rules, answer.status)


# --- The command line ---------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None, program: str | None) -> argparse.Namespace:
    """Ends the program with 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Find out why a client does not get through to a xiaozhi server. "
        "找出客户端连不上 xiaozhi 服务器的原因。",
        epilog="Exit status: 0 all well, 1 a fault, 2 wrong arguments or nothing reachable.",
    )
    parser.add_argument(
        "url", metavar="URL", help="ws://, wss:// (WebSocket) or http://, https:// (OTA)"
    )
    parser.add_argument("--token", default="", help="token of the device; OTA gives one by itself")
    parser.add_argument(
        "--device-id", default=DEVICE_ID, help="device id to come with (default: %(default)s)"
    )
    parser.add_argument(
        "--client-id", default=CLIENT_ID, help="client id to come with (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=10.0,
        metavar="SECONDS",
        help="longest wait for a handshake or a hello; three times as long for the first sound of "
        "an answer (default: %(default)g, as firmware waits)",
    )
    parser.add_argument("--quick", action="store_true", help="one text turn only, no voice")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    parser.add_argument("--lang", choices=("auto", "en", "zh"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parsed = parser.parse_args(arguments)
    try:
        parsed.address = Address.parse(parsed.url)
    except AddressWrong as error:
        parser.error(str(error))
    for name in ("token", "device_id", "client_id"):
        value = getattr(parsed, name)
        if not is_sendable(value):
            parser.error(f"--{name.replace('_', '-')} has characters that no header can have")
    return parsed


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("a number of seconds above 0 and up to 600 was expected")
    return value


def language_of(choice: str) -> str:
    """`en` or `zh`; `auto` goes by the environment."""
    if choice != "auto":
        return choice
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, names), "").lower().startswith("zh") else "en"


def unverified_context() -> ssl.SSLContext:
    """TLS with any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the probe; the exit status."""
    parsed = parse_arguments(arguments, program)
    language = language_of(parsed.lang)

    def tell(row: Row) -> None:
        if not parsed.json:
            print(row_line(row, language), flush=True)

    surveyor = Surveyor(
        address=parsed.address,
        papers=Papers(parsed.device_id, parsed.client_id, parsed.token),
        seconds=parsed.timeout,
        quick=parsed.quick,
        insecure=parsed.insecure,
        tell=tell,
        trusting=ssl.create_default_context(),
        unverified=unverified_context(),
    )
    if not parsed.json:
        print(f"{parsed.address}  Device-Id: {parsed.device_id}\n")
    try:
        report = trio.run(surveyor.run)
    except* KeyboardInterrupt:
        return_code = 130
    else:
        return_code = report.exit_status
        if parsed.json:
            print(json.dumps(report.as_json(language), ensure_ascii=False, indent=2))
        else:
            print(f"\n{findings_text(report, language)}")
    return return_code


if __name__ == "__main__":
    sys.exit(main())
