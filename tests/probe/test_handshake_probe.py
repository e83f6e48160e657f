from __future__ import annotations

import ast
import json
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import broken_servers as broken
import pytest
import trustme
from broken_servers import TOKEN, AskingServer, HealthyServer, http, ota_answers

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.cli import handshake_probe as probe_module
from xiaozhi_trio.cli.handshake_probe import (
    CLIENTS,
    OTA_CLIENTS,
    TOKEN_CLIENTS,
    TURN_CLIENTS,
    Address,
    AddressWrong,
    Papers,
    Unreachable,
    Verdict,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from xiaozhi_trio.cli.handshake_probe import Report

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "xiaozhi_trio" / "cli" / "handshake_probe.py"
COPY = TOP / "tools" / "handshake_probe.py"
OTA = "http://device.example:8003/xiaozhi/ota/"
WSS = "wss://device.example:8000/xiaozhi/v1/"
PAPERS = Papers("02:70:72:6f:62:65", "uuid", TOKEN)


def client(key: str) -> probe_module.Client:
    every = (*CLIENTS, *TOKEN_CLIENTS, *probe_module.STRAY_CLIENTS, *TURN_CLIENTS)
    return next(each for each in every if each.key == key)


# The one file


def test_the_copy_is_the_same() -> None:
    assert COPY.read_bytes() == SOURCE.read_bytes(), f"cp {SOURCE} {COPY}"


def test_nothing_but_trio_and_what_comes_with_trio_websocket_is_imported() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"trio", "h11", "wsproto"}


def test_every_reason_is_shown_by_some_server() -> None:
    tests = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert {reason for reason in probe_module.RULES if f'"{reason}"' not in tests} == set()


# Addresses


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://a.example", "ws://a.example:80/"),
        ("wss://a.example/x?token=secret", "wss://a.example:443/x"),
        ("http://[::1]:8003/ota/", "http://[::1]:8003/ota/"),
        ("https://A.example/", "https://a.example:443/"),
    ],
)
def test_an_address_is_shown_without_its_query(url: str, said: str) -> None:
    assert str(Address.parse(url)) == said


@pytest.mark.parametrize(
    "url",
    [
        "a.example",
        "ftp://a.example",
        "ws://",
        "ws://a:b@c.example/",
        "ws://a:99999/",
        "ws://a:x/",
        "ws://a/ b",
        "ws://a/\x7f",
        "ws://例.example/",
    ],
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(AddressWrong):
        Address.parse(url)


# What the clients send


def test_firmware_sends_its_headers_in_its_order() -> None:
    address = Address.parse("ws://a.example:8000/xiaozhi/v1/")
    request = probe_module.upgrade_request(client("firmware"), address, PAPERS, "KEY")
    assert request.decode().split("\r\n") == [
        "GET /xiaozhi/v1/ HTTP/1.1",
        "Host: a.example",
        f"Authorization: Bearer {TOKEN}",
        "Client-Id: uuid",
        "Connection: Upgrade",
        "Device-Id: 02:70:72:6f:62:65",
        "Protocol-Version: 1",
        "Sec-WebSocket-Key: KEY",
        "Sec-WebSocket-Version: 13",
        "Upgrade: websocket",
        "",
        "",
    ]


def test_a_page_says_who_it_is_in_the_query_only() -> None:
    address = Address.parse("ws://a.example:8000/xiaozhi/v1/?x=1")
    request = probe_module.upgrade_request(client("browser"), address, PAPERS, "KEY").decode()
    head = request.split("\r\n")
    assert head[0] == (
        "GET /xiaozhi/v1/?x=1&device-id=02%3A70%3A72%3A6f%3A62%3A65&client-id=uuid"
        f"&authorization=Bearer%20{TOKEN} HTTP/1.1"
    )
    assert "Origin: http://127.0.0.1:8006" in head
    assert not any(line.lower().startswith(("device-id", "authorization")) for line in head)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("firmware", "Bearer the-right-token"),
        ("no-token", None),
        ("empty-token", "Bearer"),
        ("wrong-token", "Bearer not-a-token"),
        ("foreign-token", "Bearer the-right-token"),
    ],
)
def test_the_tokens_of_the_clients(key: str, expected: str | None) -> None:
    assert PAPERS.authorization(client(key)) == expected


def test_a_token_with_a_blank_goes_out_as_it_is_and_none_where_there_is_none() -> None:
    assert Papers("a", "b", "Basic x").authorization(client("firmware")) == "Basic x"
    assert Papers("a", "b").authorization(client("firmware")) is None


def test_a_foreign_token_comes_with_another_device() -> None:
    assert PAPERS.device_of(client("foreign-token")) != PAPERS.device_id
    assert "the-right-token" not in repr(PAPERS)


def test_a_wifi_name_with_a_quote_makes_the_body_invalid() -> None:
    by_key = {each.key: each for each in OTA_CLIENTS}
    address = Address.parse("http://a.example/ota")
    for key, slash in (("ota-firmware", False), ("ota-sdk", True), ("ota-bad-json", False)):
        head, _, body = probe_module.ota_request(by_key[key], address, PAPERS).partition(
            b"\r\n\r\n"
        )
        assert f"Content-Length: {len(body)}".encode() in head
        assert head.startswith(b"POST /ota/ " if slash else b"POST /ota ")
        if key == "ota-bad-json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(body)
        else:
            assert json.loads(body)["board"]["ssid"] == "Home"


# Audio


@pytest.mark.parametrize("frame_ms", [20, 60])
def test_the_clip_is_speech_that_ends_in_silence(frame_ms: int) -> None:
    packets = probe_module.clip(frame_ms)
    assert {probe_module.packet_ms(packet) for packet in packets} == {frame_ms}
    decoder = OpusDecoder(16_000)
    pcm = [memoryview(decoder.decode(packet)).cast("h") for packet in packets]
    peaks = [max(map(abs, frame)) for frame in pcm]
    assert max(peaks) > 10_000
    assert peaks[-1] < 50
    assert 1.0 < len(packets) * frame_ms / 1000 < 1.6


@pytest.mark.parametrize("version", [1, 2, 3])
def test_framing_there_and_back(version: int) -> None:
    packet = probe_module.clip(60)[3]
    frame = probe_module.framed(packet, version)
    assert probe_module.unframed(frame, version) == packet
    for other in {1, 2, 3} - {version}:
        assert probe_module.unframed(frame, other) is None


@pytest.mark.parametrize(
    ("packet", "milliseconds"),
    [
        (b"", 0),
        (b"\x08", 20),
        (b"\x18", 60),
        (b"\x60", 10),
        (b"\x68", 20),
        (b"\x80", 2.5),
        (b"\xf8", 20),
        (b"\xf9", 40),
        (b"\xfb\x03", 60),
        (b"\xfb", 0),
    ],
)
def test_an_opus_packet_tells_its_length(packet: bytes, milliseconds: float) -> None:
    assert probe_module.packet_ms(packet) == milliseconds


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("device.example").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_wss_with_a_trusted_certificate(
    probe: Any, autojump_clock: MockClock, tls: Any, trusted: Any
) -> None:
    report = await probe(HealthyServer(), WSS, tls=tls, trusted=trusted)
    assert report.findings() == {}
    assert "tls" not in {row.step for row in report.rows}


async def test_an_untrusted_certificate_is_named_and_the_rest_probed(
    probe: Any, autojump_clock: MockClock, tls: Any
) -> None:
    report = await probe(HealthyServer(), WSS, tls=tls, trusted=ssl.create_default_context())
    assert {reason: [row.step for row in rows] for reason, rows in report.findings().items()} == {
        "certificate_untrusted": ["reach"]
    }
    assert report.rows[-5].step == "text-v1"
    assert report.exit_status == 1


async def test_any_certificate_will_do_where_that_is_asked_for(
    probe: Any, autojump_clock: MockClock, tls: Any
) -> None:
    strict = ssl.create_default_context()
    report = await probe(HealthyServer(), WSS, tls=tls, trusted=strict, insecure=True)
    assert report.findings() == {}


async def test_a_port_with_tls_only_is_named(
    probe: Any, autojump_clock: MockClock, tls: Any
) -> None:
    report = await probe(HealthyServer(), tls=tls)
    assert set(report.findings()) == {"tls_only_port"}


async def test_a_port_without_tls_is_named(probe: Any, autojump_clock: MockClock) -> None:
    report = await probe(HealthyServer(), WSS)
    assert set(report.findings()) == {"plain_port"}
    assert report.exit_status == 1


async def test_tls_that_fails_otherwise_is_named(probe: Any, autojump_clock: MockClock) -> None:
    for server in (broken.NeverAnswers(), broken.SpeaksSsh()):
        report = await probe(server, WSS)
        assert set(report.findings()) == {"tls_failed"}


# Reach


class Unreached(HealthyServer):
    is_dead = True


async def test_what_cannot_be_reached_is_a_status_of_its_own(
    probe: Any, autojump_clock: MockClock
) -> None:
    for url in (OTA, "ws://device.example:8000/"):
        report = await probe(Unreached(), url)
        assert set(report.findings()) == {"unreachable"}
        assert report.exit_status == 2


async def test_an_address_of_ota_that_cannot_be_reached_is_a_fault(
    probe: Any, autojump_clock: MockClock
) -> None:
    class OtaOnly(HealthyServer):
        @property
        def is_dead(self) -> bool:
            return self.served > len(OTA_CLIENTS)

    report = await probe(OtaOnly(), OTA)
    assert set(report.findings()) == {"ota_url_unreachable"}
    assert report.exit_status == 1


async def test_ota_that_dies_in_between(probe: Any, autojump_clock: MockClock) -> None:
    report = await probe(broken.DiesAtTheFifth(), OTA)
    assert "ota_unanswered" in report.findings()


async def test_a_compressed_answer_is_named(probe: Any, autojump_clock: MockClock) -> None:
    def compressed(server: Any, request: Any) -> bytes:
        return http("200 OK", server.document(request), Content_Encoding="gzip",
                    Content_Type="text/html", Access_Control_Allow_Origin="*")  # fmt: skip

    report = await probe(ota_answers(compressed)(), OTA)
    assert set(report.findings()) == {"ota_compressed", "ota_content_type"}


# Secrets and what comes from peers


async def test_the_token_of_ota_is_used_and_never_told(
    probe: Any, autojump_clock: MockClock
) -> None:
    class Echoes(AskingServer):
        def plain(self, request: Any) -> bytes:
            return http("200 OK", f"{TOKEN}\x1b[2J")

        def ota(self, request: Any) -> bytes:
            if request.method == "GET":
                return super().ota(request)
            return http("200 OK", self.document(request), Access_Control_Allow_Origin="*",
                        Access_Control_Allow_Headers="*")  # fmt: skip

    report = await probe(Echoes(), OTA)
    assert {row.step for row in report.rows if row.status == 101} > {"firmware", "text-v1"}
    assert report.findings() == {}
    told = everything_told(report)
    assert TOKEN not in told
    assert "\x1b" not in told


def everything_told(report: Report) -> str:
    return "".join(
        [
            json.dumps(report.as_json("en")),
            json.dumps(report.as_json("zh")),
            probe_module.findings_text(report, "en"),
            *(
                probe_module.row_line(row, language)
                for row in report.rows
                for language in "en zh".split()
            ),
        ]
    )


ODD_VALUES = [None, True, "60", [], [1], {}, {"a": []}, -1, 0, 1e400, float("nan"), "x" * 6000]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
async def test_no_value_of_a_hello_or_an_ota_answer_ends_the_probe(
    probe: Any, autojump_clock: MockClock, value: Any
) -> None:
    class Odd(HealthyServer):
        def document(self, request: Any) -> dict[str, Any]:
            document = super().document(request)
            keys = ("token", "version", "extra")
            document["websocket"] |= dict.fromkeys(keys, value)
            document |= dict.fromkeys(("mqtt", "activation", "server_time", "firmware"), value)
            document["firmware"] = {"version": value, "url": value}
            return document

        def hello(self, device: Any) -> dict[str, Any]:
            hello = super().hello(device)
            odd = dict.fromkeys(hello["audio_params"], value)
            return hello | {"session_id": value, "transport": value, "audio_params": odd}

        async def speak(self, device: Any) -> None:
            await device.say(type=value, state=value, text=value)
            await device.play(str(value).encode())
            await super().speak(device)

    report = await probe(Odd(), OTA)
    assert report.exit_status == 1
    assert "hello_without_transport" in report.findings()
    assert everything_told(report)


async def test_a_token_that_no_header_can_carry(probe: Any, autojump_clock: MockClock) -> None:
    class Unsendable(AskingServer):
        def document(self, request: Any) -> dict[str, Any]:
            document = super().document(request)
            document["websocket"]["token"] = "x\r\nX-Injected: 1"
            return document

    report = await probe(Unsendable(), OTA)
    assert set(report.findings()) == {"ota_token_unsendable", "token_needed"}


# The report


async def test_the_report_as_json(probe: Any, autojump_clock: MockClock) -> None:
    report = await probe(broken.QueryOnly500())
    found = json.loads(json.dumps(report.as_json("zh"), ensure_ascii=False))
    assert found["exit_status"] == 1
    by_step = {step["step"]: step for step in found["steps"]}
    assert by_step["firmware"]["verdict"] == "ok"
    assert by_step["query"]["verdict"] == "fault"
    assert by_step["query"]["status"] == 500
    assert by_step["query"]["reasons"] == ["query_http_500"]
    assert by_step["voice-60"]["verdict"] == "skipped"
    first = found["findings"][0]
    assert first["reason"] == "query_http_500"
    assert first["steps"] == ["query", "browser"]
    assert "请求头" in first["cause"]


async def test_the_findings_for_a_person(probe: Any, autojump_clock: MockClock) -> None:
    report = await probe(broken.QueryOnly500())
    text = probe_module.findings_text(report, "en")
    assert text.startswith("FAULT  query_http_500  (query, browser)\n")
    assert "its own log stays empty" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    healthy = await probe(HealthyServer())
    assert probe_module.findings_text(healthy, "zh").startswith("没有发现故障")


async def test_what_the_server_said_is_in_its_row(probe: Any, autojump_clock: MockClock) -> None:
    answered = {}
    for server in (AskingServer, broken.NoHello, broken.HangsUp, broken.NeverAnswers):
        report = await probe(server())
        rows = {row.step: row.answered for row in report.rows}
        answered[server.__name__] = rows["firmware"].en
    assert answered == {
        "AskingServer": 'HTTP 401: {"error": "unauthorized"}',
        "NoHello": "101, no hello",
        "HangsUp": "hung up without an answer",
        "NeverAnswers": "no answer in 10.0 s",
    }
    report = await probe(AskingServer(), token=TOKEN)
    rows = {row.step: row.answered for row in report.rows}
    assert rows["browser-wrong-token"].en == "101, “认证失败”, close 1008 token_malformed"
    assert rows["text-v1"].zh == ("听到“Say hello in one short sentence.”，12 个音频包，tts stop")


def test_chinese_is_wrapped_by_its_width() -> None:
    lines = probe_module.wrapped("中" * 100, "原因: ", "  ").splitlines()
    assert [probe_module.width(line) for line in lines] == [80, 80, 50]
    assert all(line.startswith("  ") for line in lines[1:])


def test_text_of_a_peer_is_one_short_line() -> None:
    assert probe_module.shown("a\r\nb\x1b[2J\u202e") == "a b?[2J?"
    assert len(probe_module.shown("x" * 1000)) == 101
    assert probe_module.shown("Bearer secret!", "secret") == "Bearer …!"


@pytest.mark.parametrize(
    ("choice", "environment", "language"),
    [
        ("en", {"LANG": "zh_CN.UTF-8"}, "en"),
        ("auto", {"LANG": "zh_CN.UTF-8"}, "zh"),
        ("auto", {"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ("auto", {}, "en"),
    ],
)
def test_the_language(
    monkeypatch: pytest.MonkeyPatch, choice: str, environment: dict[str, str], language: str
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert probe_module.language_of(choice) == language


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.example"],
        ["ws://a.example", "--timeout", "0"],
        ["ws://a.example", "--timeout", "soon"],
        ["ws://a.example", "--token", "x\ny"],
        ["ws://a.example", "--device-id", "名"],
        ["ws://a.example", "--lang", "fr"],
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        probe_module.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(_: Any) -> None:
        raise Unreachable("Connection refused")

    monkeypatch.setattr(probe_module.Dialler, "_connect", connect)


@pytest.mark.usefixtures("no_connection")
def test_the_table_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_module.main(["ws://a.example/?token=secret", "--lang", "zh"]) == 2
    printed = capsys.readouterr().out
    assert "secret" not in printed
    assert "故障     连接 ws://a.example:80" in printed
    assert "启动服务器" in printed


@pytest.mark.usefixtures("no_connection")
def test_json_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_module.main(["ws://a.example/", "--json", "--lang", "en"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["reason"] == "unreachable"
    assert found["steps"][0]["answered"] == "Connection refused"


def test_an_interrupt_is_no_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def connect(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(probe_module.Dialler, "_connect", connect)
    assert probe_module.main(["ws://a.example/", "--json"]) == 130
    assert capsys.readouterr().out == ""


def test_every_verdict_has_a_mark() -> None:
    assert probe_module._MARKS.keys() == set(Verdict)
