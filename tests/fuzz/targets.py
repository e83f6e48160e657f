"""What a peer's bytes may do to each parser: be taken, or be refused in its own words.

A target takes any bytes and raises only where a parser raised what it should not, or
what it made of the bytes is not what it promises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import tomli
from loguru import logger

from xiaozhi_trio.config.toml_lines import locate_statements
from xiaozhi_trio.engines.catalogue import Catalogue, CatalogueError
from xiaozhi_trio.engines.event_stream import EventStreamError, EventStreamParser
from xiaozhi_trio.engines.protocols import HIGHEST_SPEECH_RATE, LOWEST_SPEECH_RATE
from xiaozhi_trio.engines.tts.wav_stream import WavError, WavStream
from xiaozhi_trio.http.ota import reported_version
from xiaozhi_trio.tools.tool_listing import MAX_LISTED_BYTES, MAX_TOOLS, ToolListing
from xiaozhi_trio.wire import binary, dialect, jsonrpc, messages
from xiaozhi_trio.wire.device_id import MAX_LENGTH, normalise_device_id
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.forwarded import client_of, said_secure
from xiaozhi_trio.wire.frames import FrameScanner
from xiaozhi_trio.wire.handshake import parse_handshake
from xiaozhi_trio.wire.json_depth import MAX_JSON_DEPTH, is_too_deep
from xiaozhi_trio.wire.proxy_header import (
    MAX_BYTES,
    ProxyHeaderMalformed,
    may_begin,
    parse_proxy_header,
)
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, find_end, parse_request_head
from xiaozhi_trio.wire.token import TokenInvalid, TokenSigner
from xiaozhi_trio.wire.upgrade import check_upgrade, wants_upgrade
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

DOTTED: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,7}")
SIGNER: Final = TokenSigner(secret="fuzz", lifetime_seconds=60, clock=lambda: 1e9)
PROXY: Final = Endpoint.of("10.0.0.1", 5000)
TRUSTED: Final = TrustedNetworks(["10.0.0.0/8"])


@attrs.frozen
class Target:
    """One parser under any bytes."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    """Bytes that get far, for a fuzzer to begin with."""


TARGETS: dict[str, Target] = {}


def target(*seeds: bytes) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Enter a function into `TARGETS` under its name."""

    def enter(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        name: str = getattr(run, "__name__")  # noqa: B009 - of functions, not of every callable
        TARGETS[name] = Target(name, run, seeds)
        return run

    return enter


def refused_as(error: type[Exception], parse: Callable[..., T], *arguments: Any) -> T | str:
    """What is parsed, or the text of the one error that is allowed."""
    try:
        return parse(*arguments)
    except error as refusal:
        words = str(refusal)
    assert words, "a refusal without words"
    return words


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes behind the first one, cut at places that it chooses."""
    step = data[0] % 13 + 1 if data else 1
    cuts = [*range(1, len(data), step), len(data)] if data else []
    for start, end in pairwise(cuts):
        yield data[start:end]


def json_of(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


UPGRADE: Final = (
    b"GET /xiaozhi/v1/?device-id=aa:bb:cc:dd:ee:ff HTTP/1.1\r\nHost: a\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@target(UPGRADE, b"\r\nPOST http://a/b?c#d HTTP/1.0\nA:b\n\n", b"GET / HTTP/2.0\r\n\r\n")
def request_head(data: bytes) -> None:
    end = find_end(data)
    # A slow peer's head ends where a fast one's does.
    slowly = next(
        (at for at in range(len(data) + 1) if find_end(data[:at], at - 1 if at else 0)), None
    )
    assert slowly == end, (slowly, end)
    if end is None:
        return
    head = refused_as(HandshakeRefused, parse_request_head, data[:end])
    if isinstance(head, RequestHead):
        assert all(name == name.lower() and name for name, _ in head.headers)
        assert not any(set(value) & set(b"\r\n\0") for _, value in head.headers)
        assert isinstance(head.path, str)
        wants_upgrade(head)
        key = refused_as(HandshakeRefused, check_upgrade, head, "/xiaozhi/v1/")
        assert isinstance(key, str) or len(key) == 24


@target(
    b"/?device-id=AA-BB-CC-DD-EE-FF&client-id=web&authorization=Bearer%20x\norigin: http://a",
    b"/\ndevice-id: a\nclient-id: b\nauthorization: Bearer c\nprotocol-version: 3\nhost: [::1]:80",
)
def handshake(data: bytes) -> None:
    request_target, *lines = data.split(b"\n")
    headers = [(name.lower(), value) for name, _, value in (each.partition(b":") for each in lines)]
    said = refused_as(HandshakeRefused, parse_handshake, headers, request_target)
    if not isinstance(said, str):
        assert said.device_id == normalise_device_id(said.device_id)
        assert said.client_id.isascii()
        assert said.protocol_version in binary.VERSIONS
        assert said.token == said.token.strip()


@target(b"AA-BB-CC-DD-EE-FF", b"aabbccddeeff", b"desk.top_1:2-3")
def device_id(data: bytes) -> None:
    try:
        normal = normalise_device_id(data.decode("latin-1"))
    except ValueError:
        return
    assert normalise_device_id(normal) == normal
    assert 0 < len(normal) <= MAX_LENGTH
    assert normal.isascii()
    assert not set(normal) & set("/\\ \r\n\0")
    assert normal.strip(".")


@target(SIGNER.issue("", "a").encode(), b"x" * 43 + b".999999999999")
def token(data: bytes) -> None:
    refused_as(TokenInvalid, SIGNER.verify, data.decode("latin-1"), "", ["a"])


@target(b"\x16\x03\x01", b"PRI * HTTP/2", b"PROXY TCP4", b"\x10\x0c\x00\x04MQTT", b"GET / HTTP")
def first_bytes(data: bytes) -> None:
    might = dialect.might_be_http(data)
    known = dialect.recognise(data)
    assert not might or known is dialect.UNKNOWN, known


@target(
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + bytes(36),
    b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
)
def proxy_header(data: bytes) -> None:
    if not may_begin(data):
        return
    header = refused_as(ProxyHeaderMalformed, parse_proxy_header, data)
    if header is None:
        assert len(data) < MAX_BYTES
    elif not isinstance(header, str):
        assert 0 < header.size <= min(len(data), MAX_BYTES)
        # Nothing less is a header, and what comes behind it is none of its business.
        for less in range(header.size):
            assert parse_proxy_header(data[:less]) is None
        assert parse_proxy_header(data[: header.size]) == header


@target(
    b"x-forwarded-for: 192.0.2.1, 10.0.0.2\nx-forwarded-proto: https",
    b'forwarded: for="[2001:db8::1]:80";proto=https, for=10.0.0.2;by="a\\"b"',
)
def forwarded(data: bytes) -> None:
    lines = (line.partition(b":") for line in data.split(b"\n"))
    head = RequestHead("GET", b"/", tuple((name, value) for name, _, value in lines))
    assert isinstance(client_of(head, PROXY, TRUSTED), Endpoint)
    assert said_secure(head) in (True, False, None)


@target(
    b"\x03\x01\x83abcdx\x89\x80abcd\x80\x83abcdxyz",
    b"\x05\x82\xfe\x00\x80" + b"x" * 132,
    b"\x01\x82\xff" + bytes(8),
)
def frames(data: bytes) -> None:
    whole, cut = FrameScanner(), FrameScanner()
    sizes = [found.message_bytes for found in whole.feed(data[1:])]
    found = [each for piece in pieces(data) for each in cut.feed(piece)]
    assert [each.message_bytes for each in found] == sizes


@target(
    b'{"type":"hello","version":1,"features":{"mcp":true},"transport":"websocket",'
    b'"audio_params":{"format":"opus","sample_rate":16000,"channels":1,"frame_duration":60}}',
    b'{"type":"listen","state":"start","mode":"auto"}',
    b'{"type":"listen","state":"detect","text":"\xe4\xbd\xa0"}',
    b'{"type":"abort","reason":"wake_word_detected"}',
    b'{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"result":{}}}',
)
def message(data: bytes) -> None:
    refused_as(ProtocolViolation, messages.decode, data)
    refused_as(ProtocolViolation, messages.decode, data.decode("utf-8", "replace"))


@target(b'{"a":["\\"[",{"b":[]}]}', b"[" * 65 + b"]" * 65)
def json_depth(data: bytes) -> None:
    text = data.decode("latin-1")
    deep = is_too_deep(text)
    value = json_of(text.encode())
    if value is not None:
        assert deep == (depth_of(value) > MAX_JSON_DEPTH)


def depth_of(value: object) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [
            member
            for each in level
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


@target(
    b"\x01packet",
    b"\x02\0\x02\0\0\0\0\0\0\0\0\0\x01\0\0\0\x03abc",
    b"\x02\0\x02\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x02{}",
    b"\x03\0\0\0\x03abc",
)
def binary_frame(data: bytes) -> None:
    version = binary.VERSIONS[data[0] % 3] if data else 1
    found = refused_as(ProtocolViolation, binary.unpack, data[1:], version)
    if isinstance(found, binary.AudioFrame):
        packed = binary.pack(found.packet, version, found.timestamp)
        assert binary.unpack(packed, version) == found


@target(
    b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}',
    b'{"jsonrpc":"2.0","id":1,"error":{"message":"no","code":-1}}',
    b'{"jsonrpc":"2.0","method":"notifications/state","params":{}}',
    b'{"jsonrpc":"2.0","id":2,"method":"ping"}',
)
def json_rpc(data: bytes) -> None:
    parsed = refused_as(ProtocolViolation, jsonrpc.parse, json_of(data))
    if not isinstance(parsed, str):
        assert refused_as(ProtocolViolation, jsonrpc.parse, parsed.payload()) == parsed


@target(
    b'{"tools":[{"name":"self.a","description":"b","inputSchema":{"type":"object",'
    b'"properties":{"c":{"type":"integer"}},"required":["c"]}}],"nextCursor":"d"}',
    b'{"tools":[{"name":"a","annotations":{"audience":["user"]}},{"name":"b"},{"name":"b"}]}',
)
def tool_listing(data: bytes) -> None:
    page, listing = json_of(data), ToolListing()
    logger.disable("xiaozhi_trio")
    try:
        for _ in range(2):
            refused_as(ProtocolViolation, listing.add, page)
    finally:
        logger.enable("xiaozhi_trio")
    assert len(listing.tools) <= MAX_TOOLS
    assert len({tool.name for tool in listing.tools}) == len(listing.tools)
    assert sum(tool.size for tool in listing.tools) <= MAX_LISTED_BYTES


@target(
    b'{"application":{"version":"2.4.2"},"board":{"ssid":"a"}}',
    b'{"application":{"version":" 1.0-dev"}}',
)
def ota_body(data: bytes) -> None:
    assert DOTTED.fullmatch(reported_version(data))


@target(
    b"\x04data: a\r\n\r\n: x\ndata: b\ndata: c\n\ndata: d",
    b"\x00\xef\xbb\xbfdata\n\nevent: e\ndata:\xff\r\r",
)
def event_stream(data: bytes) -> None:
    def events(*chunks: bytes) -> list[str]:
        parser = EventStreamParser()
        return [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()

    whole = refused_as(EventStreamError, events, data[1:])
    assert refused_as(EventStreamError, events, *pieces(data)) == whole


WAV: Final = (
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80\xbb\0\0\0\x77\x01\0\x02\0\x10\0"
    b"data\xff\xff\xff\xff\x01\0\x02\0\x03\0"
)


@target(
    b"\x01" + WAV,
    b"\x07" + WAV.replace(b"\x01\0\x01\0", b"\x01\0\x02\0"),
    b"\x02" + WAV.replace(b"fmt ", b"LIST\x03\0\0\0odd\0fmt "),
)
def wav_stream(data: bytes) -> None:
    def samples(*chunks: bytes) -> tuple[bytes, int]:
        stream = WavStream()
        return b"".join(map(stream.feed, chunks)), stream.sample_rate

    whole = refused_as(WavError, samples, data[1:])
    assert refused_as(WavError, samples, *pieces(data)) == whole
    if not isinstance(whole, str):
        pcm, rate = whole
        assert len(pcm) % 2 == 0
        assert rate == 0 or LOWEST_SPEECH_RATE <= rate <= HIGHEST_SPEECH_RATE


@target(
    b"a = 1\n[b.c]\nd = '''\ne'''\n[[f]]\ng = [\n{ h = 1 },\n]",
    b'"k\\u0061" . b = """x\\""""\n[ "t" ]# [u]\nv=07:32:00',
)
def toml_lines(data: bytes) -> None:
    try:
        document = data.decode().replace("\r\n", "\n")
        table = tomli.loads(document)
    except (ValueError, RecursionError):
        return
    lines = locate_statements(document)
    for key in table:
        line = lines.line_of((key,))
        assert line is None or 1 <= line <= document.count("\n") + 1


@target(
    b'[models.a]\ndescription = "b"\nlicence = "MIT"\nupstream = "c"\n[[models.a.files]]\n'
    b'name = "d"\nsize = 5\nsha256 = "' + b"0" * 64 + b'"\n[[models.a.files.sources]]\n'
    b'kind = "hub"\nrepository = "e/f"\npath = "g"\n',
)
def catalogue(data: bytes) -> None:
    refused_as(CatalogueError, Catalogue.parse, data.decode("utf-8", "replace"))
