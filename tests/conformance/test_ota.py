"""Items 1 to 18 of the conformance checklist: what each client needs of the OTA answer."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from loguru import logger

from xiaozhi_trio.config.settings import AuthenticationSettings, ServerSettings, Settings
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import serve_http
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.http.tokens import SteadyTokens
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAC = "aa:bb:cc:dd:ee:ff"
CLIENT = "5f0d1ee1-8b8b-4f66-9c66-5a9f3f0a6f01"
FIRMWARE_HEADERS = {
    "Activation-Version": "1",
    "Device-Id": MAC,
    "Client-Id": CLIENT,
    "User-Agent": "bread-compact-wifi/2.4.2",
    "Accept-Language": "zh-CN",
    "Content-Type": "application/json",
}
FIRMWARE_BODY = json.dumps(
    {
        "version": 2,
        "language": "zh-CN",
        "flash_size": 16_777_216,
        "minimum_free_heap_size": "8318916",
        "mac_address": MAC,
        "uuid": CLIENT,
        "chip_model_name": "esp32s3",
        "chip_info": {"model": 9, "cores": 2, "revision": 2, "features": 18},
        "application": {"name": "xiaozhi", "version": "2.4.2", "elf_sha256": "0" * 64},
        "partition_table": [
            {"label": "nvs", "type": 1, "subtype": 2, "address": 36_864, "size": 16_384}
        ],
        "ota": {"label": "ota_0"},
        "board": {"type": "bread-compact-wifi", "ssid": "home", "rssi": -52, "mac": MAC},
    }
).encode()
WEB_SOCKET_URL = re.compile(r"wss?://[^/:]+(:\d+)?/[^:]*")


class Clock:
    """Unix time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def services(
    *, clock: Clock | None = None, authentication: bool = False, **server: Any
) -> HttpServices:
    clock = clock or Clock()
    signer = TokenSigner(secret="s" * 32, lifetime_seconds=30 * 86_400, clock=clock)
    return HttpServices(
        settings=Settings(
            server=ServerSettings(host="127.0.0.1", http_port=0, **server),
            authentication=AuthenticationSettings(enabled=authentication),
        ),
        tokens=SteadyTokens(signer),
        websocket_port=lambda: 8000,
        health=lambda: {"status": "ok"},
        clock=clock,
        lan=lambda: ["192.168.1.5"],
    )


@asynccontextmanager
async def in_memory(made: HttpServices | None = None) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build_app(made or services()))
    async with httpx.AsyncClient(transport=transport, base_url="http://192.168.1.5:8003") as client:
        yield client


@asynccontextmanager
async def on_the_wire() -> AsyncIterator[int]:
    """A server on a free port of this machine; gives the port."""
    made = services()
    shutdown = trio.Event()

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        await serve_http(build_app(made), made, shutdown=shutdown, task_status=task_status)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port: int = await nursery.start(serve)
            yield port
            shutdown.set()


async def exchange(port: int, request: bytes) -> tuple[bytes, list[str], bytes]:
    """Status line, header lines in lower case and body of the answer to a raw request."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, [line.decode().lower() for line in headers], body


def firmware_request(path: str, method: str = "POST") -> bytes:
    """As the firmware's HTTP client writes it: no port in `Host`, `Connection: close`."""
    body = FIRMWARE_BODY if method == "POST" else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in FIRMWARE_HEADERS.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


async def ask(made: HttpServices | None = None, **request: Any) -> httpx.Response:
    request = {"headers": FIRMWARE_HEADERS, "content": FIRMWARE_BODY} | request
    async with in_memory(made) as client:
        return await client.post("/xiaozhi/ota/", **request)


@pytest.mark.sockets
async def test_001_answer_has_a_length_and_is_neither_chunked_nor_compressed() -> None:
    async with on_the_wire() as port:
        status, headers, body = await exchange(port, firmware_request("/xiaozhi/ota/"))
    assert status.startswith(b"HTTP/1.1 200")
    assert "content-type: application/json" in headers
    assert f"content-length: {len(body)}" in headers
    assert not [line for line in headers if line.startswith(("transfer-enc", "content-enc"))]
    assert json.loads(body)["websocket"]["url"] == "ws://127.0.0.1:8000/xiaozhi/v1/"


@pytest.mark.parametrize("authentication", [False, True])
async def test_002_websocket_has_url_token_and_version(authentication: bool) -> None:
    answer = await ask(services(authentication=authentication))
    websocket = answer.json()["websocket"]
    assert set(websocket) == {"url", "token", "version"}
    assert isinstance(websocket["token"], str)
    assert bool(websocket["token"]) == authentication
    assert websocket["version"] == 1


async def test_003_server_time_is_milliseconds_and_minutes() -> None:
    answer = await ask(services(timezone_offset_minutes=-210))
    assert answer.json()["server_time"] == {
        "timestamp": 1_700_000_000_000,
        "timezone_offset": -210,
    }


@pytest.mark.parametrize("version", ["2.4.2", "1.0.0.1", "7"])
async def test_004_firmware_keeps_its_version(version: str) -> None:
    answer = await ask(content=json.dumps({"application": {"version": version}}).encode())
    assert answer.json()["firmware"] == {"version": version, "url": ""}


def as_the_device_compares(version: str) -> list[int]:
    """The firmware's own parse, which ends the device where a part is no C int."""
    parts = [int(part) for part in version.split(".")]
    assert all(part < 2**31 for part in parts)
    return parts


@pytest.mark.parametrize(
    ("reported", "at_most"),
    [("2.4.2", "2.4.2"), ("2.4.2-dev", "2.4.2"), ("2.4", "2.4"), ("v9", "0.0.0"), ("", "0.0.0")],
)
async def test_005_no_version_is_newer_than_the_devices(reported: str, at_most: str) -> None:
    headers = {"Device-Id": MAC}
    content = json.dumps({"application": {"version": reported}}).encode()
    answer = await ask(headers=headers, content=content)
    offered = as_the_device_compares(answer.json()["firmware"]["version"])
    assert offered <= as_the_device_compares(at_most)


async def test_006_mqtt_is_absent() -> None:
    assert "mqtt" not in (await ask()).json()


async def test_007_activation_is_absent() -> None:
    assert "activation" not in (await ask()).json()


async def test_008_websocket_is_never_null() -> None:
    for request in ({}, {"content": b""}, {"headers": {"Device-Id": "web_test_client"}}):
        assert isinstance((await ask(**request)).json()["websocket"], dict)


async def test_009_keys_and_values_fit_the_flash_memory() -> None:
    websocket = (await ask(services(authentication=True))).json()["websocket"]
    assert all(len(key) <= 15 for key in websocket)
    assert all(len(str(value).encode()) < 4000 for value in websocket.values())


async def test_010_the_body_is_small() -> None:
    longest = {
        "Device-Id": "d" * 64,
        "Client-Id": "c" * 128,
        "Host": ".".join(["a" * 62] * 4),
    }
    answer = await ask(services(authentication=True), headers=longest)
    assert answer.status_code == 200
    assert len(answer.content) < 6 * 1024


@pytest.mark.sockets
@pytest.mark.parametrize("path", ["/xiaozhi/ota", "/xiaozhi/ota/"])
async def test_011_both_spellings_answer_without_a_redirect(path: str) -> None:
    async with on_the_wire() as port:
        for method in ("POST", "GET"):
            status, headers, _ = await exchange(port, firmware_request(path, method))
            assert status.startswith(b"HTTP/1.1 200")
            assert not [line for line in headers if line.startswith("location:")]


@pytest.mark.sockets
@pytest.mark.parametrize("path", ["/xiaozhi/ota", "/xiaozhi/ota/"])
async def test_012_get_head_and_options_are_answered(path: str) -> None:
    async with on_the_wire() as port:
        status, _, body = await exchange(port, firmware_request(path, "GET"))
        assert status.startswith(b"HTTP/1.1 200")
        text = body.decode()
        assert text.startswith("OTA接口运行正常，向设备发送的websocket地址是：ws://127.0.0.1:8000/")
        assert "Traceback" not in text

        status, _, body = await exchange(port, firmware_request(path, "HEAD"))
        assert status.startswith(b"HTTP/1.1 200")
        assert body == b""

        status, headers, body = await exchange(port, firmware_request(path, "OPTIONS"))
        assert status.startswith(b"HTTP/1.1 204")
        assert "access-control-allow-origin: *" in headers
        assert body == b""


@pytest.mark.parametrize(
    "content",
    [b'{"board":{"ssid":"my "home""}}', b"{", b"\xff\xfe", b"[1]", b"[" * 60_000, b"NaN"],
)
async def test_013_an_invalid_body_is_answered_from_the_headers(content: bytes) -> None:
    answer = await ask(content=content)
    assert answer.status_code == 200
    assert answer.json()["firmware"] == {"version": "0.0.0", "url": ""}
    assert answer.json()["websocket"]["url"]


async def test_014_a_missing_device_id_is_a_clean_error() -> None:
    for headers in ({}, {"Device-Id": ""}, {"Device-Id": "  "}):
        answer = await ask(headers=headers, content=b"")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"] == "device_id_missing"
        assert "Device-Id" in answer.json()["message"]
        assert "缺少" in answer.json()["message"]


@pytest.mark.parametrize(
    "spelling", ["AA:BB:CC:DD:EE:FF", "aa-bb-cc-dd-ee-ff", "AABBCCDDEEFF", " aa:bb:cc:dd:ee:ff "]
)
async def test_015_each_spelling_of_a_device_is_one_device(spelling: str) -> None:
    made = services(authentication=True)
    first = (await ask(made)).json()
    other = (await ask(made, headers=FIRMWARE_HEADERS | {"Device-Id": spelling})).json()
    assert other["websocket"]["token"] == first["websocket"]["token"]


@pytest.mark.parametrize(
    "device_id",
    [b"../../etc/passwd", b"..", b"a" * 65, b"x; DROP TABLE", b"\xe8\xae\xbe", b"a\tb", b"%00"],
)
async def test_015_an_unsafe_device_id_is_refused_and_never_logged(device_id: bytes) -> None:
    records: list[str] = []
    sink = logger.add(lambda message: records.append(repr(message.record)), level="TRACE")
    try:
        answer = await ask(headers={"Device-Id": device_id})
    finally:
        logger.remove(sink)
    assert answer.status_code == 400
    assert answer.json()["error"] == "device_id_malformed"
    shown = device_id.decode("latin-1")
    assert shown == ".." or not [line for line in [answer.text, *records] if shown in line]


@pytest.mark.parametrize("activation_version", ["2.1.1", "1", "2", "", "x" * 1000, None])
async def test_016_any_activation_version_is_accepted(activation_version: str | None) -> None:
    headers = {"Device-Id": MAC}
    if activation_version is not None:
        headers["Activation-Version"] = activation_version
    assert (await ask(headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("192.168.1.5:8003", "192.168.1.5"),
        ("voice.example.org:9003", "voice.example.org"),
        ("0.0.0.0:8003", "192.168.1.5"),
        ("[fd00::2]:8003", "192.168.1.5"),
        ("[::1]", "192.168.1.5"),
        ("a:b/c@d", "192.168.1.5"),
    ],
)
async def test_017_the_address_can_be_parsed_and_reached(host: str, expected: str) -> None:
    answer = await ask(headers=FIRMWARE_HEADERS | {"Host": host})
    url = answer.json()["websocket"]["url"]
    assert WEB_SOCKET_URL.fullmatch(url)
    assert url == f"ws://{expected}:8000/xiaozhi/v1/"


async def test_017_a_configured_address_is_handed_out() -> None:
    configured = "wss://voice.example.org/xiaozhi/v1/"
    answer = await ask(services(websocket_url=configured))
    assert answer.json()["websocket"]["url"] == configured


async def test_018_a_device_that_asks_twice_gets_the_same_answer() -> None:
    clock = Clock()
    made = services(clock=clock, authentication=True)
    first = (await ask(made)).json()
    clock.now += 60
    second = (await ask(made)).json()
    for answer in (first, second):
        del answer["server_time"]
    assert first == second
    signer = TokenSigner(secret="s" * 32, lifetime_seconds=30 * 86_400, clock=clock)
    signer.verify(second["websocket"]["token"], CLIENT, [MAC])
