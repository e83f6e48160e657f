"""Scenarios against a server that does what the test says: expectations hold or fail for it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
from rich.console import Console

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.engines.protocols import ChatMessage
from xiaozhi_trio.testing import MemoryLink
from xiaozhi_trio.testing.expectations import Outcome, ToneVoice
from xiaozhi_trio.testing.scenario_file import parse_scenario
from xiaozhi_trio.testing.scenario_run import Played, play
from xiaozhi_trio.testing.timeline_table import timeline_table
from xiaozhi_trio.testing.tone_speech import speech

HEAD = 'name = "test"\n[[steps]]\npress = "button"\n'


async def parrot(link: MemoryLink) -> None:
    """Greets, and answers each `listen stop` with one sentence after 100 ms."""

    async def say(**body) -> None:
        await link.to_device.send(json.dumps(body))

    encoder = OpusEncoder(24_000, frame_ms=60)
    async for payload in link.from_device:
        if isinstance(payload, bytes):
            continue
        body = json.loads(payload)
        if body["type"] == "hello":
            await say(type="hello", transport="websocket")
        if body.get("state") == "stop":
            await trio.sleep(0.1)
            await say(type="stt", text="one two three")
            await say(type="tts", state="start")
            await trio.sleep(0.1)
            pcm = speech("Polly.", 24_000)
            for start in range(0, len(pcm), encoder.frame_bytes):
                piece = pcm[start : start + encoder.frame_bytes]
                await link.to_device.send(encoder.encode(piece.ljust(encoder.frame_bytes, b"\0")))
            await trio.sleep(0.6)
            await say(type="tts", state="stop")


def join_to(serve):
    @asynccontextmanager
    async def join(scenario, engines):
        async with trio.open_nursery() as nursery:

            @asynccontextmanager
            async def dial():
                link = MemoryLink()
                nursery.start_soon(serve, link)
                try:
                    yield link
                finally:
                    link.hang_up()

            engines.llm.dialogues.append(
                [ChatMessage("system", "be nice"), ChatMessage("user", "one two")]
            )
            yield dial
            nursery.cancel_scope.cancel()

    return join


async def played(steps: str, **options) -> Played:
    return await play(parse_scenario(HEAD + steps, file="test"), join_to(parrot), **options)


TALK = """
[[steps]]
send = { type = "listen", state = "stop" }
"""


@pytest.mark.parametrize(
    "good",
    [
        '{ event = "stt", text = "one two three", not_before_ms = 90, within_ms = 110 }',
        '{ event = "stt", text = "one two…" }',
        '{ event = "speech", within_ms = 210 }',
        '{ absent = "hang up", for_ms = 500 }',
        '{ absent = "stt", for_ms = 90 }',
        '{ absent = "stt", text = "something else", for_ms = 500 }',
    ],
)
async def test_what_is_expected_of_a_step_holds(autojump_clock, good) -> None:
    done = await played(f"{TALK}expect = [{good}]")
    assert not done.failures
    assert done.verdicts[0].outcome is Outcome.HELD


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{ event = "stt", within_ms = 90 }', "it happened after 100 ms"),
        ('{ event = "stt", not_before_ms = 110 }', "it happened after 100 ms already"),
        ('{ event = "stt", text = "one two" }', "its text is 'one two three'"),
        ('{ event = "alert", within_ms = 50 }', "it did not happen; since then: send, sent"),
        ('{ event = "stt", count = 2, within_ms = 500 }', "it did not happen"),
        ('{ absent = "stt", for_ms = 500 }', "it happened after 100 ms: 'one two three'"),
    ],
)
async def test_what_is_expected_of_a_step_fails(autojump_clock, bad, reason) -> None:
    done = await played(f'{TALK}expect = [{bad}]\n[[steps]]\nwait_for = "never"')
    (failure,) = done.failures
    assert failure.reason.startswith(reason)


GLOBAL = f'{TALK}expect = [{{ event = "tts stop" }}]\n[[expect]]\n'


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        ('order = ["hello", "stt", "tts start", "tts stop"]', True),
        ('order = ["tts start", "stt"]', False),
        ('times = 1\nof = "stt"', True),
        ('times = 2\nof = "stt"', False),
        ('absent = "alert"', True),
        ('absent = "stt"', False),
        ('heard = "Polly."', True),
        ('heard = "Pol"', False),
        ('heard = "Pol"\nmatch = "begins"', True),
        ('heard = "y."\nmatch = "ends"', True),
        ('heard = "oll"\nmatch = "contains"', True),
        ('heard = "oll"\nmatch = "lacks"', False),
        ('state = "listening"', True),
        ('state = "speaking"', False),
        ("longest_gap_ms = 0", True),
        ('history = ["user: one two"]', True),
        ('history = ["user: …"]', True),
        ('history = ["user: two"]', False),
        ("history = []", False),
        ("asked = { llm = 0 }", True),
        ("asked = { asr = 1 }", False),
    ],
)
async def test_what_is_expected_of_the_whole(autojump_clock, expected, holds) -> None:
    done = await played(GLOBAL + expected)
    assert (not done.failures) == holds


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [
        ('heard = "Polly."', Outcome.UNCHECKED),
        ("asked = { llm = 7 }", Outcome.UNCHECKED),
        ('history = ["user: two"]', Outcome.UNCHECKED),
        ('event = "tts start"\ntext = "x"\nsince = "start"', Outcome.UNCHECKED),
        ('event = "stt"\ntext = "Won, two, three!"\nsince = "start"', Outcome.HELD),
        ('event = "stt"\ntext = "entirely else"\nsince = "start"', Outcome.FAILED),
        ('state = "listening"', Outcome.HELD),
    ],
)
async def test_of_a_foreign_server_only_what_shows_is_checked(
    autojump_clock, expected, outcome
) -> None:
    class Mumbling(ToneVoice):
        is_exact = False

    done = await played(GLOBAL + expected, foreign=True, voice=Mumbling())
    assert done.verdicts[-1].outcome is outcome


async def test_real_time_widens_limits(autojump_clock) -> None:
    limits = '{ event = "stt", within_ms = 60, not_before_ms = 140 }'
    assert (await played(f"{TALK}expect = [{limits}]")).failures
    assert not (await played(f"{TALK}expect = [{limits}]", tolerance_ms=50)).failures


async def test_a_gap_in_what_is_heard_is_found(autojump_clock) -> None:
    encoder = OpusEncoder(24_000, frame_ms=60)

    async def stammers(link: MemoryLink) -> None:
        await link.to_device.send('{"type":"hello"}')
        await link.to_device.send('{"type":"tts","state":"start"}')
        for _ in range(2):
            await trio.sleep(0.3)
            await link.to_device.send(encoder.encode(bytes(encoder.frame_bytes)))
        await trio.sleep(0.1)
        await link.to_device.send('{"type":"tts","state":"stop"}')
        await trio.sleep_forever()

    document = f'{HEAD}[[steps]]\nwait_for = "tts stop"\n[[expect]]\nlongest_gap_ms = 200'
    done = await play(parse_scenario(document, file="test"), join_to(stammers))
    assert [failure.reason for failure in done.failures] == ["there was one of 240 ms"]


async def test_a_broken_rule_fails_unless_it_is_allowed(autojump_clock) -> None:
    async def rude(link: MemoryLink) -> None:
        await link.to_device.send('{"type":"hello"}')
        await link.to_device.send(b"\x08")
        await trio.sleep_forever()

    document = HEAD + "[[steps]]\nwait_ms = 100"
    done = await play(parse_scenario(document, file="test"), join_to(rude))
    assert [failure.expectation for failure in done.failures] == ["rule 'audio'"]
    allowed = f'breaks = ["audio"]\n{document}'
    assert not (await play(parse_scenario(allowed, file="test"), join_to(rude))).failures


async def test_every_step_can_be_done(autojump_clock) -> None:
    done = await played(
        """
        [[steps]]
        say = "one"
        [[steps]]
        say = "two"
        when = "now"
        wait = false
        [[steps]]
        sound = "cough"
        [[steps]]
        sound = "hum"
        wait = false
        [[steps]]
        wake = "hello"
        [[steps]]
        wake = ""
        [[steps]]
        type = "typed"
        [[steps]]
        send_text = "nothing"
        times = 0
        [[steps]]
        send_hex = "00"
        times = 2
        [[steps]]
        disconnect = "rst"
        [[steps]]
        wait_ms = 100
        [[steps]]
        connect = true
        [[steps]]
        press = "talk"
        [[steps]]
        release = "talk"
        [[steps]]
        wait_for = "idle"
        """
    )
    assert not done.failures
    console = Console(width=120)
    with console.capture() as capture:
        console.print(timeline_table(done.timeline))
    shown = capture.get()
    single = [event for event in done.timeline.happenings if event.kind != "audio"]
    heading, one_run_of_audio = 1, 1
    assert shown.count("\n") == heading + one_run_of_audio + len(single)
    assert "voice ends" in shown
    assert "sent listen detect typed" in shown


async def test_a_wait_in_vain_ends_the_scenario(autojump_clock) -> None:
    done = await played('[[steps]]\nwait_for = "rain"\npatience_ms = 500\n[[steps]]\nwait_ms = 1')
    (failure,) = done.failures
    assert failure.expectation == "step 2"
    assert failure.reason == "waited 500 ms for wait_for = 'rain', patience_ms = 500"


async def test_a_microphone_that_never_opens_ends_the_scenario(autojump_clock) -> None:
    document = 'name = "test"\n[[steps]]\nsay = "hello?"'
    done = await play(parse_scenario(document, file="test"), join_to(parrot))
    assert [failure.reason for failure in done.failures] == [
        "the microphone has not opened within 30 s"
    ]


async def test_runs_of_audio_are_one_line_and_control_characters_are_shown(
    autojump_clock,
) -> None:
    async def odd(link: MemoryLink) -> None:
        await link.to_device.send('{"type":"hello"}')
        await link.to_device.send('{"type":"stt","text":"[red]a\\u001b[2Jb"}')
        for _ in zip(range(5), count(), strict=False):
            await link.to_device.send(b"\x08")
        await trio.sleep_forever()

    document = f'breaks = ["audio"]\n{HEAD}[[steps]]\nwait_ms = 100'
    done = await play(parse_scenario(document, file="test"), join_to(odd))
    console = Console(width=120)
    with console.capture() as capture:
        console.print(timeline_table(done.timeline))
    assert "audio × 5" in capture.get()
    assert "[red]a\ufffd[2Jb" in capture.get()


async def test_a_server_of_others_is_not_stopped(autojump_clock) -> None:
    done = await played('[[steps]]\nserver = "stops"', foreign=True)
    (failure,) = done.failures
    assert failure.reason == "this server is not ours to stop"


async def test_a_stalled_network_holds_the_answer_back(autojump_clock) -> None:
    steps = (
        '[[steps]]\nnetwork = "stalls"'
        f'{TALK}expect = [{{ absent = "stt", for_ms = 500 }}]'
        '\n[[steps]]\nnetwork = "flows"\nexpect = [{ event = "stt", within_ms = 10 }]'
    )
    done = await played(steps)
    assert not done.failures
