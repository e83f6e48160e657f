"""Each server with one fault is told that very fault, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import broken_servers as broken
import pytest
from broken_servers import (
    AskingServer,
    HealthyServer,
    StrayClients,
    hello_changed,
    http,
    in_chunks,
    ota_answers,
    ota_changed,
)

from xiaozhi_trio.cli import handshake_probe
from xiaozhi_trio.cli.handshake_probe import RULES, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


OTA = "http://device.example:8003/xiaozhi/ota/"


def without(*path: str) -> Callable[[dict[str, Any]], object]:
    """Takes a member away."""

    def remove(document: dict[str, Any]) -> None:
        *parents, last = path
        for parent in parents:
            document = document[parent]
        del document[last]

    return remove


def with_(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """Gives members other values; a section's are merged into it."""

    def change(document: dict[str, Any]) -> None:
        for name, value in changes.items():
            if isinstance(value, dict) and name in document:
                document[name] |= value
            else:
                document[name] = value

    return change


IN_30_MS = hello_changed(with_(audio_params={"frame_duration": 30}))
AT_THE_ROOT = ota_changed(with_(websocket={"url": "ws://a.example:8000?x=/"}))
ALSO = {
    (broken.QueryOnly500, "query_http_500"): {"refused_with_500"},
    (broken.SpeaksSsh, "not_http"): {"plain_get_unanswered"},
    (IN_30_MS, "hello_audio_unplayable"): {"packets_too_long"},
    (AT_THE_ROOT, "ota_url_malformed"): {"no_websocket_at_path"},
    (broken.NeedsValidBody, "ota_body_rejected"): set(),
}
"""What follows from the one fault."""


@pytest.mark.parametrize("server", [HealthyServer, AskingServer])
@pytest.mark.parametrize("url", ["ws://device.example:8000/xiaozhi/v1/", OTA])
async def test_a_healthy_server_raises_no_alarm(probe, autojump_clock, server, url) -> None:
    report = await probe(server(), url, quick=False, token=broken.TOKEN)
    assert report.findings() == {}
    assert report.exit_status == 0
    assert {row.verdict for row in report.rows} == {Verdict.OK}
    assert [row.step for row in report.rows][-5:] == [
        client.key for client in handshake_probe.TURN_CLIENTS
    ]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (broken.QueryOnly500, "query_http_500"),
        (broken.QueryUnread, "query_identity_unread"),
        (broken.KeepAlive200, "connection_list_unread"),
        (broken.CaseSensitive, "header_case"),
        (broken.OriginChecking, "origin_refused"),
        (broken.ForcesCompression, "extension_not_asked_for"),
        (broken.WrongAccept, "accept_header_wrong"),
        (broken.HangsUp, "hung_up_on_handshake"),
        (broken.SpeaksSsh, "not_http"),
        (broken.answers("500 Oops"), "http_500"),
        (broken.answers("502 Bad Gateway"), "bad_gateway"),
        (broken.answers("301 Moved"), "redirected"),
        (broken.answers("404 Not Found"), "no_websocket_at_path"),
        (broken.answers("426 Upgrade Required"), "upgrade_lost"),
        (broken.answers("418 Teapot"), "refused_otherwise"),
        (broken.answers("401 Unauthorized"), "token_needed"),
        (broken.DiesAtTheFifth, "server_gone"),
        (broken.NoHello, "hello_unanswered"),
        (broken.HangsUpAtHello, "closed_before_hello"),
        (broken.SendsReservedOpcode, "broken_frames"),
        (broken.WantsBinding, "turned_away"),
        (broken.LateHello, "hello_late"),
        (hello_changed(without("transport")), "hello_without_transport"),
        (hello_changed(with_(transport="udp")), "hello_without_transport"),
        (hello_changed(without("session_id")), "hello_without_session_id"),
        (hello_changed(without("audio_params")), "hello_without_audio_params"),
        (hello_changed(without("audio_params", "channels")), "hello_without_audio_params"),
        (hello_changed(with_(audio_params={"sample_rate": 44100})), "hello_audio_unplayable"),
        (IN_30_MS, "hello_audio_unplayable"),
        (hello_changed(with_(audio_params={"frame_duration": 120})), "hello_packets_too_long"),
        (lambda: StrayClients("500"), "refused_with_500"),
        (lambda: StrayClients("hang up"), "refused_by_hanging_up"),
        (lambda: StrayClients("silence"), "refused_by_silence"),
        (lambda: StrayClients("in"), "device_id_not_asked_for"),
        (broken.PlainGetHangsUp, "plain_get_unanswered"),
        (broken.WaitsForTls, "tls_hello_unanswered"),
        (broken.NoStop, "tts_stop_missing"),
        (broken.NoAudio, "no_audio"),
        (broken.NoStart, "tts_start_missing"),
        (broken.NoAnswer, "text_unanswered"),
        (broken.AlertsOnly, "turn_failed"),
        (broken.HangsUpInTurn, "closed_in_turn"),
        (broken.LongPackets, "packets_too_long"),
        (broken.SendsAllAtOnce, "audio_ahead"),
        (broken.IgnoresAbort, "abort_unanswered"),
    ],
)
async def test_the_fault_of_a_websocket_is_named(probe, autojump_clock, server, reason) -> None:
    report = await probe(server())
    assert set(report.findings()) == {reason} | ALSO.get((server, reason), set())
    assert report.exit_status == int(RULES[reason].verdict is Verdict.FAULT)


async def test_silence_is_named_and_not_waited_for_each_time(probe, autojump_clock) -> None:
    report = await probe(broken.NeverAnswers())
    assert set(report.findings()) == {
        "handshake_unanswered",
        "plain_get_unanswered",
        "tls_hello_unanswered",
    }
    assert autojump_clock.current_time() < 25


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (broken.ClosesWithoutReason, "refused_silently"),
        (broken.ToldAfterUpgrade, "refused_after_upgrade"),
        (broken.TakesAnyToken, "any_token_accepted"),
        (broken.RefusesPagesBeforeUpgrade, "browser_cannot_read_refusal"),
    ],
)
async def test_a_bad_doorkeeper_is_named(probe, autojump_clock, server, reason) -> None:
    report = await probe(server(), token=broken.TOKEN)
    found = report.findings()
    assert reason in found
    assert "firmware" not in {row.step for row in found[reason]}
    assert report.exit_status == int(RULES[reason].verdict is Verdict.FAULT)


@pytest.mark.parametrize(
    "server", [AskingServer, broken.ClosesWithoutReason, broken.ToldAfterUpgrade]
)
async def test_a_wrong_token_of_ones_own_is_named(probe, autojump_clock, server) -> None:
    report = await probe(server(), token="of-yesterday")
    found = report.findings()
    kept_out = {
        AskingServer: "token_refused",
        broken.ToldAfterUpgrade: "token_refused",
        broken.ClosesWithoutReason: "closed_before_hello",
    }
    assert [row.step for row in found[kept_out[server]]] == [
        client.key for client in handshake_probe.CLIENTS
    ]


@pytest.mark.parametrize(
    ("server", "step", "reason"),
    [
        (broken.FramingOneOnly, "text-v2", "framing_ignored"),
        (broken.FramingOneOnly, "text-v3", "framing_ignored"),
        (broken.NoAnswer, "voice-60", "voice_unanswered"),
        (broken.Deaf, "voice-20", "speech_not_understood"),
        (
            hello_changed(with_(audio_params={"frame_duration": 60})),
            "voice-20",
            "hello_packets_too_long",
        ),
    ],
)
async def test_the_fault_of_a_turn_is_named(
    probe, autojump_clock, monkeypatch, server, step, reason
) -> None:
    monkeypatch.setattr(handshake_probe, "QUICK_TURNS", {step})
    report = await probe(server())
    assert [row.step for row in report.findings()[reason]] == [step]
    assert set(report.findings()) == {reason}


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (ota_changed(with_(websocket={"url": "ws://localhost:8000/xiaozhi/v1/"})), "ota_url_local"),
        (ota_changed(with_(websocket={"url": "ws://0.0.0.0:8000/xiaozhi/v1/"})), "ota_url_local"),
        (
            ota_changed(with_(websocket={"url": "ws://a.example/xiaozhi/v1/?mac=a:b"})),
            "ota_url_colon",
        ),
        (ota_changed(with_(websocket={"url": "ws://[fd00::1]:8000/xiaozhi/v1/"})), "ota_url_colon"),
        (AT_THE_ROOT, "ota_url_malformed"),
        (ota_changed(with_(websocket={"url": "http://a.example:8000/"})), "ota_url_malformed"),
        (ota_changed(with_(mqtt={})), "ota_mqtt_empty"),
        (ota_changed(with_(mqtt={"endpoint": "a.example"})), "ota_mqtt_preferred"),
        (ota_changed(with_(activation=None)), "ota_activation_null"),
        (ota_changed(with_(activation={"code": "123456"})), "ota_activation_pending"),
        (ota_changed(without("websocket")), "ota_websocket_missing"),
        (ota_changed(with_(websocket={"token": None})), "ota_token_missing"),
        (ota_changed(without("websocket", "version")), "ota_version_missing"),
        (ota_changed(with_(websocket={"a_key_much_too_long": 1})), "ota_flash_limits"),
        (ota_changed(with_(websocket={"extra": "x" * 4000})), "ota_flash_limits"),
        (ota_changed(with_(padding="x" * 8200)), "ota_too_large"),
        (ota_changed(with_(firmware={"version": "v1.2"})), "ota_firmware_version"),
        (ota_changed(with_(server_time={"timestamp": 1_795_000_000})), "ota_server_time"),
        (ota_answers(in_chunks), "ota_chunked"),
        (ota_answers(lambda *_: http("302 Found", Location="/x")), "ota_redirected"),
        (ota_answers(lambda *_: http("200 OK", "a page")), "ota_not_json"),
        (ota_answers(lambda *_: http("404 Not Found")), "ota_status"),
        (ota_answers(lambda *_: b""), "ota_unanswered"),
        (broken.NeedsValidBody, "ota_body_rejected"),
        (broken.NoPreflight, "ota_preflight_refused"),
        (broken.OtaGet500, "ota_get_failed"),
        (broken.NewTokenEachTime, "ota_answer_changes"),
        (broken.OtaOnWebSocketPort, "ota_port_mismatch"),
        (broken.TakesNoToken, "token_not_asked_for"),
    ],
)
async def test_the_fault_of_ota_is_named(probe, autojump_clock, server, reason) -> None:
    report = await probe(server(), OTA)
    assert set(report.findings()) == {reason} | ALSO.get((server, reason), set())
    assert report.exit_status == int(RULES[reason].verdict is Verdict.FAULT)
