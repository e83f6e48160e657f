"""A device that does anything it may and may not, and whether the conversation survives it.

A rule is one thing that a device, its user, its network, an engine or the operator does.
After each the transcript is checked against the conformance list (57 to 81), one check
for each item; see `machine/conformance_checks.py`, also for what cannot be checked here.

Rules are synchronous and the session is not. It lives in one Trio run that stands still
between the rules (`machine/stepped_trio.py`): so the invariants are looked at after every
rule, the next rule can be chosen by what the device has received so far, and a failure
shrinks to the rules that it needs. A machine that only collected steps, for a run at its
end, could do neither of the first two; a Trio thread beside hypothesis would need locks
to be as deterministic. The order in which tasks are scheduled is drawn as well.

`DEVICE_MACHINE_EXAMPLES=5000` makes it try that many conversations, other ones each time.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from conformance_checks import CHECKS, OUTBOX_LIMIT
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from loguru import logger
from moody_engines import (
    HANGS,
    STUBBORN_SECONDS,
    Mood,
    Moods,
    MoodyDetector,
    MoodyLanguageModel,
    MoodyRecognizer,
    MoodySynthesizer,
)
from scene import Scene
from stepped_trio import SteppedTrio
from transcript import Entry, HungUp, Received, Sent, Step
from trio.testing import wait_all_tasks_blocked

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.config.settings import (
    AudioSettings,
    ConversationSettings,
    ListeningSettings,
    Settings,
)
from xiaozhi_trio.session.conversation import Conversation
from xiaozhi_trio.session.idle_clock import IdleClock
from xiaozhi_trio.session.interruption import Interruption
from xiaozhi_trio.session.listening import Listening
from xiaozhi_trio.session.microphone import Microphone
from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.session.playout import Playout
from xiaozhi_trio.session.session import Session
from xiaozhi_trio.session.speaking import Speaking
from xiaozhi_trio.session.turn import Turn
from xiaozhi_trio.wire.closing import Closing
from xiaozhi_trio.wire.messages import ListenMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.session.listening import Utterance
    from xiaozhi_trio.testing import Event
    from xiaozhi_trio.wire.messages import Hello

EXAMPLES = int(os.environ.get("DEVICE_MACHINE_EXAMPLES", "0"))
CONVERSATIONS = settings(
    max_examples=EXAMPLES or 120,
    stateful_step_count=50,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    # Minutes of shrinking are for who looks at a failure: it prints how to repeat it.
    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
SETTINGS = Settings(
    audio=AudioSettings(complexity=0),
    # The voice here is a steady tone, which is noise to who looks at its level.
    listening=ListeningSettings(max_utterance_seconds=5, adaptive_threshold=False),
    conversation=ConversationSettings(
        recognition_seconds=5, first_token_seconds=5, synthesis_seconds=5
    ),
)

MODES = st.sampled_from(["auto", "manual", "realtime"])
LENGTHS = st.sampled_from([0.06, 0.18, 0.24, 0.66, 1.2, 2.4])
SESSION_IDS = st.sampled_from([None, "", "f" * 32, "stale", 5])
MALFORMED = st.sampled_from(
    [
        {"type": "hello", "version": 1, "transport": "websocket"},
        {"type": "hello", "audio_params": {"frame_duration": "60"}},
        {"type": "listen"},
        {"type": "listen", "state": "pause"},
        {"type": "listen", "state": "start", "mode": "telepathy"},
        {"type": "listen", "state": "start", "mode": ["auto"]},
        {"type": "listen", "state": "detect"},
        {"type": "listen", "state": "detect", "text": " "},
        {"type": "listen", "state": "detect", "text": "x" * 5000},
        {"type": "abort", "reason": 7},
        {"type": "mcp"},
        {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 99, "result": {}}},
        {"type": "mcp", "payload": {"jsonrpc": "2.0", "method": "notifications/x"}},
        {"type": "iot", "states": []},
        {"type": "goodbye"},
        {"type": "custom", "payload": None},
        {"type": None},
        {},
    ]
)
NOT_JSON = {
    "quotes": '{"type":"listen","state":"detect","text":"say "hi""}',
    "empty": "",
    "null": "null",
    "list": "[]",
    "braces": "{" * 1000,
    "deep": '{"a":' * 500 + "1" + "}" * 500,
    "NaN": '{"type":"listen","state":"detect","text":NaN}',
}
FRAMES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff" * 40,
        b"\x0b" * 3,
        b"\0" * 60_000,
        b"\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xd8",
        b"\0\2\0\1\0\0\0\0\0\0\0\0\0\0\0\2{}",
        b"\0\0\0\1\xd8",
        b"\0\0\xff\xff\xd8",
        b"\7\0\0\1\xd8",
    ]
)
LONGEST_PACKET_MS = 120
LONGEST_STEP = 300.0
"""Virtual seconds; the longest reply takes 90."""
BAD_HELLOS = st.sampled_from(
    [
        ("transport_unsupported", {"transport": "udp"}),
        ("format_unsupported", {"audio_params": {"format": "pcm"}}),
        ("hello_malformed", {"audio_params": {"frame_duration": "60"}}),
        ("hello_malformed", {"features": []}),
    ]
)
FEATURES = st.sampled_from(
    [
        {"aec": False, "mcp": False, "emoji": False},
        {"aec": False, "mcp": True, "emoji": True},
        {"aec": True, "mcp": False, "emoji": True},
        {"aec": False, "mcp": False, "emoji": True},
        None,
    ]
)
"""None where nothing is said at first."""
DRAIN = Closing(1001, "server_shutdown")


class Network:
    """The way of a session's messages to the device, which can stall."""

    def __init__(self, session: Any) -> None:
        self._outbox = session.outbox
        self._take = session.outbox.next_payload
        session.outbox.next_payload = self._next_payload
        self._flows = trio.Event()
        self._flows.set()

    async def _next_payload(self) -> str | bytes:
        payload = await self._take()
        await self._flows.wait()
        return payload

    @property
    def waiting(self) -> int:
        return len(self._outbox._items)

    def stall(self) -> None:
        self._flows = trio.Event()

    def flow(self) -> None:
        self._flows.set()


class DeviceMachine(RuleBasedStateMachine):
    """One device in front of one server, on which it dials again when it was hung up on."""

    requests = Bundle("requests")
    """Ids of what the server asked of the device's MCP server."""

    def __init__(self, talk_in: Any) -> None:
        super().__init__()
        self.talk_in = talk_in
        self.trio = SteppedTrio()
        self.numbers = itertools.count(1)
        self.moods = Moods()
        self.step: Step | None = None
        """What is to be checked."""

    @initialize(
        schedule=st.random_module(),
        uplink_ms=st.sampled_from([60, 20]),
        pre_roll_ms=st.sampled_from([500, 0]),
        framing=st.sampled_from([1, 2, 3]),
        features=FEATURES,
        target=requests,
    )
    def begin(
        self, schedule: Any, uplink_ms: int, pre_roll_ms: int, framing: int, features: Any
    ) -> MultipleResults[int]:
        self._dial(uplink_ms, pre_roll_ms, framing)
        return self._greet(features)

    # The bridge between the rules and the session.

    def _dial(self, uplink_ms: int, pre_roll_ms: int, framing: int) -> None:
        self.entries: list[Entry] = []
        listening = attrs.evolve(SETTINGS.listening, pre_roll_ms=pre_roll_ms)
        configured = attrs.evolve(SETTINGS, listening=listening)
        self.scene = Scene(configured, uplink_ms, self.trio.clock.current_time())
        self.checks = [check(self.scene) for check in CHECKS]
        encoder = OpusEncoder(16_000, frame_ms=uplink_ms, complexity=0)
        loud = (b"\x00\x20" * 8 + b"\x00\xe0" * 8) * (encoder.frame_samples // 16)
        self.voice = [encoder.encode(loud) for _ in range(3)][-1]
        self.silence = [encoder.encode(bytes(len(loud))) for _ in range(9)][-1]
        self.network_stalled = False
        self.trio.take(self._connect, uplink_ms, framing)
        self.step = self._rest(0)

    async def _connect(self, nursery: trio.Nursery, uplink_ms: int, framing: int) -> None:
        note = self.entries.append
        self.t = await self.talk_in(
            nursery,
            vad=MoodyDetector(self.moods),
            asr=MoodyRecognizer(self.moods, self.numbers, note),
            llm=MoodyLanguageModel(self.moods, note),
            tts=MoodySynthesizer(self.moods, note),
            settings=self.scene.settings,
            frame_ms=uplink_ms,
            binary_version=framing,
        )
        self.network = Network(self.t.session)
        see = self.t.device._event

        def observed(payload: str | bytes) -> Event:
            event = see(payload)
            note(Received(event.at, event))
            return event

        self.t.device._event = observed
        await wait_all_tasks_blocked()

    def _do(self, step: Any, *args: Any, **kwargs: Any) -> None:
        """Take a step and let it come to rest."""
        seen = len(self.entries)
        began = self.trio.clock.current_time()
        self.trio.take(self._settled, partial(step, *args, **kwargs))
        self.step = self._rest(seen, began)

    async def _settled(self, nursery: trio.Nursery, step: Any) -> None:
        with trio.fail_after(LONGEST_STEP), suppress(trio.BrokenResourceError):
            await step()
        await wait_all_tasks_blocked()
        if self.t.device.hung_up_at is not None and not self.scene.over:
            self.entries.append(HungUp(self.t.device.hung_up_at, self.t.closing))

    def _rest(self, seen: int, began: float = 0.0) -> Step:
        return Step(
            began=began,
            now=self.trio.clock.current_time(),
            entries=self.entries[seen:],
            generating=self.t.llm.generating,
            recognising=self.t.asr.recognising,
            speaking=self.t.tts.speaking,
            unstoppable=self.moods.unstoppable,
            unsent=self.network.waiting,
            network_stalled=self.network_stalled,
            detector_fails=self.moods.vad.ending == "fails",
        )

    @invariant()
    def conforms(self) -> None:
        """Whatever was done, each item of the list still holds."""
        step, self.step = self.step, None
        if step is None:
            return
        for entry in step.entries:
            for check in self.checks:
                check.see(entry)
            self.scene.take(entry)
        for check in self.checks:
            check.settle(step)
        if not self.scene.speaking:
            self.scene.stalled = False

    def teardown(self) -> None:
        try:
            # A failure stands for itself, and a choice that hypothesis gave up has no end.
            if sys.exception() is None and not self.scene.over:
                self._do(self._leave, "hang up")
                self.conforms()
                self._do(trio.sleep, STUBBORN_SECONDS)
                self.conforms()
                assert self.scene.over, "the session does not end"
        finally:
            self.trio.close()

    async def _leave(self, how: str) -> None:
        self._note(how)
        if how == "drain":
            self.t.session.end(DRAIN)
        else:
            self.t.link.hang_up()

    @property
    def talks(self) -> bool:
        return self.scene.greeted and not self.has_left

    @property
    def has_left(self) -> bool:
        return self.scene.leaving or self.scene.over

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way that could keep the ear shut."""
        busy = self.t.asr.recognising or self.t.llm.generating or self.t.tts.speaking
        return not busy and not self.scene.speaking and not self.scene.suspended

    def _note(self, kind: str, detail: str = "", ms: float = 0.0) -> None:
        self.entries.append(Sent(self.trio.clock.current_time(), kind, detail, ms))

    # What a device sends.

    async def _say(self, body: dict[str, Any]) -> None:
        await self.t.device.send_json(**body)

    async def _hello(self, **changes: Any) -> None:
        self._note("hello")
        audio = {"format": "opus", "sample_rate": 16_000, "frame_duration": self.scene.uplink_ms}
        await self._say(
            {
                "type": "hello",
                "version": self.t.device.binary_version,
                "transport": "websocket",
                "audio_params": audio,
                **changes,
            }
        )

    async def _send(self, kind: str, detail: str = "", **more: Any) -> None:
        """One of the messages that a conversation is made of."""
        self._note(kind, detail)
        match kind:
            case "listen":
                body = {"type": "listen", "state": "start", "mode": detail}
            case "stop":
                body = {"type": "listen", "state": "stop"}
            case "detect":
                body = {"type": "listen", "state": "detect", "text": detail}
            case "abort":
                body = {"type": "abort"}
        await self._say(
            {**body, **{key: value for key, value in more.items() if value is not None}}
        )

    async def _stream(self, packet: bytes, seconds: float, pause: float) -> None:
        """Audio, with a pause after each packet: its length, or none in a burst."""
        due = trio.current_time()
        for _ in range(round(seconds * 1000 / self.scene.uplink_ms)):
            if self.scene.greeted:
                self._note("audio", "voice" if packet is self.voice else "", self.scene.uplink_ms)
            else:
                self._note("nonsense", "message")
            await self.t.device.send_packet(packet)
            if pause:
                due += pause
                await trio.sleep_until(due)

    async def _send_all(self, messages: list[tuple[str, str]], **more: Any) -> None:
        for kind, detail in messages:
            if kind == "audio":
                await self._stream(self.voice, 0.3, 0)
            elif kind == "detect":
                await self._send(kind, detail.format(next(self.numbers)), **more)
            else:
                await self._send(kind, detail, **more)

    async def _send_raw(self, payload: str | bytes, kind: str, detail: str = "") -> None:
        ms = LONGEST_PACKET_MS if kind == "audio" else 0
        self._note(kind, detail, ms)
        await self.t.device.send_raw(payload)

    # The beginning and the end of a session.

    @precondition(lambda self: not self.scene.greeted and not self.has_left)
    @rule(features=FEATURES.filter(bool), target=requests)
    def hello(self, features: dict[str, bool]) -> MultipleResults[int]:
        return self._greet(features)

    def _greet(self, features: dict[str, bool] | None) -> MultipleResults[int]:
        if features is None:
            return multiple()
        self.scene.leaves_echo = features["aec"]
        self._do(self._hello, features=features)
        return self._new_requests()

    def _new_requests(self) -> MultipleResults[int]:
        assert self.step is not None
        payloads = [e.body["payload"] for e in self.step.received if e.kind == "mcp"]
        return multiple(*(payload["id"] for payload in payloads if "id" in payload))

    @precondition(lambda self: not self.scene.greeted and not self.has_left)
    @rule(bad=BAD_HELLOS)
    def hello_that_cannot_be_taken(self, bad: tuple[str, dict[str, Any]]) -> None:
        async def send() -> None:
            self._note("bad hello", bad[0])
            await self._say(
                {"type": "hello", "version": 1, "transport": "websocket", **bad[1]},
            )

        self._do(send)

    @precondition(lambda self: not self.scene.greeted and not self.has_left)
    @rule(
        body=st.sampled_from(
            [
                {"type": "listen", "state": "start", "mode": "auto"},
                {"type": "listen", "state": "detect", "text": "too early"},
                {"type": "abort"},
                {"type": "mcp", "payload": {}},
            ]
        )
    )
    def speak_before_hello(self, body: dict[str, Any]) -> None:
        self._do(self._send_raw, json.dumps(body), "nonsense", "message")

    @precondition(lambda self: not self.has_left)
    @rule(how=st.sampled_from(["hang up", "drain", 50.0, 99.9, 140.0]))
    def leave(self, how: str | float) -> None:
        """By a word, or by saying nothing for so many seconds."""

        if isinstance(how, float):
            self._do(trio.sleep, how)
        else:
            self._do(self._leave, how)

    @precondition(lambda self: self.scene.over)
    @rule(
        uplink_ms=st.sampled_from([60, 20]),
        pre_roll_ms=st.sampled_from([500, 0]),
        framing=st.sampled_from([1, 2, 3]),
        features=FEATURES,
        target=requests,
    )
    def dial_again(
        self, uplink_ms: int, pre_roll_ms: int, framing: int, features: Any
    ) -> MultipleResults[int]:
        self._dial(uplink_ms, pre_roll_ms, framing)
        return self._greet(features)

    # A conversation as it should be.

    @precondition(lambda self: self.talks)
    @rule(mode=MODES, pause=st.sampled_from([0.0, 0.06]))
    def ask_aloud(self, mode: str, pause: float) -> None:
        """52, 53, 54 and 60: whoever speaks, and then no more, is understood."""
        heard = self.is_quiet or mode == "manual"
        heard = heard or (mode == "realtime" and not self.scene.leaves_echo)

        async def ask() -> None:
            await self._send("listen", mode)
            await self._stream(self.voice, 0.66, pause)
            await self._stream(self.silence, 0.78, pause)
            if mode == "manual":
                await self._send("stop")

        self._do(ask)
        if heard and self.moods.vad.ending != "fails" and self.t.closing is None:
            # A reply that goes on after an interruption in the same breath may be louder.
            assert self.step.recognitions or "tts start" in self.step.kinds

    @precondition(lambda self: self.talks)
    @rule(
        text=st.sampled_from(["Question {}", "Question {}", "你好小智", "hi xiaozhi"]),
        session_id=SESSION_IDS,
    )
    def type_or_call(self, text: str, session_id: Any) -> None:
        self._do(self._send, "detect", text.format(next(self.numbers)), session_id=session_id)

    @precondition(lambda self: self.talks)
    @rule(mode=MODES, session_id=SESSION_IDS)
    def open_the_microphone(self, mode: str, session_id: Any) -> None:
        self._do(self._send, "listen", mode, session_id=session_id)

    @precondition(lambda self: self.talks)
    @rule(session_id=SESSION_IDS)
    def close_the_microphone(self, session_id: Any) -> None:
        self._do(self._send, "stop", session_id=session_id)

    @precondition(lambda self: self.talks)
    @rule(
        reason=st.sampled_from([None, "", "wake_word_detected", "unheard of", "x" * 100]),
        session_id=SESSION_IDS,
    )
    def abort(self, reason: str | None, session_id: Any) -> None:
        self._do(self._send, "abort", reason=reason, session_id=session_id)

    @precondition(lambda self: self.talks and not self.is_quiet)
    @rule(count=st.integers(1, 40))
    def listen_to_some_packets(self, count: int) -> None:
        """Until so many came, or the speech is over, or nothing comes."""
        before = len(self.t.device.of_kind("audio"))

        def enough() -> bool:
            new = len(self.t.device.of_kind("audio")) - before
            return new >= count or self.t.device.events[-1].kind == "tts stop"

        async def listen() -> None:
            with trio.move_on_after(15), suppress(trio.EndOfChannel):
                await self.t.device.wait_until(enough)

        self._do(listen)

    @precondition(lambda self: self.talks and self.scene.speaking)
    @rule()
    def hear_it_out(self) -> None:
        stops = len(self.t.device.of_kind("tts stop"))

        async def listen() -> None:
            with suppress(trio.EndOfChannel):
                await self.t.device.wait_for("tts stop", count=stops + 1)

        self._do(listen)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.06, 0.3, 1.0, 3.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self._do(trio.sleep, seconds)

    # A conversation as it should not be.

    @precondition(lambda self: not self.has_left)
    @rule(
        voiced=st.booleans(),
        seconds=LENGTHS,
        pause=st.sampled_from([0.0, 0.06, 0.06, 0.3, 1.9, 2.1]),
    )
    def audio(self, voiced: bool, seconds: float, pause: float) -> None:
        packet = self.voice if voiced else self.silence
        seconds = min(seconds, 0.66) if pause > 0.06 else seconds
        self._do(self._stream, packet, seconds, pause)

    @precondition(lambda self: self.talks)
    @rule(
        messages=st.lists(
            st.one_of(
                st.tuples(st.just("listen"), MODES),
                st.just(("stop", "")),
                st.just(("detect", "Question {}")),
                st.just(("abort", "")),
                st.just(("audio", "")),
            ),
            min_size=2,
            max_size=5,
        ),
        session_id=SESSION_IDS,
    )
    def all_in_one_breath(self, messages: list[tuple[str, str]], session_id: Any) -> None:
        self._do(self._send_all, messages, session_id=session_id)

    @precondition(lambda self: not self.has_left)
    @rule(body=MALFORMED)
    def malformed_message(self, body: dict[str, Any]) -> None:
        if body.get("type") != "hello" or self.scene.greeted:
            self._do(self._send_raw, json.dumps(body), "nonsense", "message")

    @precondition(lambda self: not self.has_left)
    @rule(text=st.sampled_from(list(NOT_JSON)))
    def invalid_json(self, text: str) -> None:
        self._do(self._send_raw, NOT_JSON[text], "nonsense", "not JSON")

    @precondition(lambda self: not self.has_left)
    @rule(frame=FRAMES)
    def strange_frame(self, frame: bytes) -> None:
        kind, detail = ("audio", "strange") if self.scene.greeted else ("nonsense", "message")
        self._do(self._send_raw, frame, kind, detail)

    @precondition(lambda self: self.talks)
    @rule(request=requests, failed=st.booleans(), target=requests)
    def answer_the_servers_request(self, request: int, failed: bool) -> MultipleResults[int]:
        """Also twice, and on the next connection."""
        answer = {"error": {"message": "no"}} if failed else {"result": {"tools": []}}
        body = {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": request, **answer}}
        self._do(self._send_raw, json.dumps(body), "answer")
        return self._new_requests()

    # What devices do not do.

    @rule(
        engine=st.sampled_from(["asr", "llm", "tts"]),
        seconds=st.sampled_from([0.0, 0.0, 0.3, 2.0, HANGS]),
        ending=st.sampled_from(["well", "well", "empty", "fails", "stubborn"]),
        sentences=st.sampled_from([0, 1, 3, 40]),
    )
    def an_engine_changes(self, engine: str, seconds: float, ending: str, sentences: int) -> None:
        setattr(self.moods, engine, Mood(seconds, ending, sentences))

    @rule(ending=st.sampled_from(["well", "fails"]))
    def the_detector_changes(self, ending: str) -> None:
        self.moods.vad = Mood(ending=ending)
        self._do(trio.lowlevel.checkpoint)

    @rule()
    def the_engines_recover(self) -> None:
        for field in ("vad", "asr", "llm", "tts"):
            setattr(self.moods, field, Mood())

    @precondition(lambda self: self.talks)
    @rule(
        seconds=st.sampled_from([0.1, 0.5, 3.0]),
        meanwhile=st.sampled_from([None, None, "abort", "detect", "stop"]),
    )
    def the_network_stalls(self, seconds: float, meanwhile: str | None) -> None:
        async def stall() -> None:
            self.network.stall()
            await trio.sleep(seconds)
            if meanwhile is not None:
                await self._send_all([(meanwhile, "Question {}" if meanwhile == "detect" else "")])
            await trio.sleep(seconds)
            assert self.network.waiting <= OUTBOX_LIMIT
            self.network.flow()

        self.scene.stalled = self.network_stalled = True
        self._do(stall)
        self.network_stalled = False


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Hours of conversation fill a log that nobody reads."""
    logger.disable("xiaozhi_trio")
    yield
    logger.enable("xiaozhi_trio")


def test_the_conversation_survives_any_device(talk_in: Any) -> None:
    def machine() -> DeviceMachine:
        return DeviceMachine(talk_in)

    run_state_machine_as_test(machine, settings=CONVERSATIONS)


def no_stop(speaking: Speaking) -> None:
    speaking._closed = True


def not_withdrawn(outbox: Outbox, turn: int) -> int:
    return 0


def forgetting_the_first_hello(session: Session, hello: Hello, nursery: trio.Nursery) -> None:
    session._conversation = None
    greet(session, hello, nursery)


greet = Session._greet


def only_silenced(turn: Turn, _: object = None, *, plays_on: bool = True) -> None:
    dropped = turn._tools.outbox.withdraw(turn.number)
    turn._conclude("interrupted", dropped=dropped, plays_on=plays_on)


def all_that_was_sent(playout: Playout, **_: object) -> str:
    return " ".join(sentence.text for sentence in playout._sentences)


def unanswered(conversation: Conversation, reason: str) -> None:
    conversation._interrupt(Interruption.ABORT)


def kept(listening: Listening, mode: ListenMode) -> None:
    listening._mode = mode
    listening._was_opened = True
    if listening._utterance is None and mode is ListenMode.MANUAL:
        listening._utterance = bytearray()


def left_open(microphone: Microphone) -> Utterance | None:
    return microphone.end_early()


async def at_once(*_: object) -> None:
    await trio.lowlevel.checkpoint()


def held(clock: IdleClock) -> None:
    clock.hold()


BREAKS = {
    "tts stop is dropped": (Speaking, "close", no_stop, {66, 67, 76, 77, 80}),
    "frames come after the abort": (Outbox, "withdraw", not_withdrawn, {76}),
    "a second hello": (Session, "_greet", forgetting_the_first_hello, {38, 63}),
    "an interrupted turn goes on": (Turn, "interrupt", only_silenced, {76, 79, 80}),
    "what nobody heard is remembered": (Playout, "heard", all_that_was_sent, {81}),
    "an abort in silence is not answered": (Conversation, "abort", unanswered, {77, 80}),
    "old audio is kept": (Listening, "open", kept, {57, 58, 59}),
    "the ear stays open": (Microphone, "close", left_open, {58, 60}),
    "audio is not paced": (Playout, "_wait_for_room", at_once, {68, 69}),
    "tts stop cuts the speech": (Playout, "drained", at_once, {70}),
    "no apology": (Turn, "_apologise", at_once, {75}),
    "idle for ever": (IdleClock, "restart", held, {65}),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_session_is_noticed(talk_in: Any, monkeypatch: Any, broken: str) -> None:
    owner, name, instead, items = BREAKS[broken]
    monkeypatch.setattr(owner, name, instead)
    hasty = settings(CONVERSATIONS, report_multiple_bugs=False)
    with pytest.raises(AssertionError) as failure:
        run_state_machine_as_test(lambda: DeviceMachine(talk_in), settings=hasty)
    check = type(failure.traceback[-1].frame.f_locals["self"]).__name__
    assert int(check[1:4]) in items, check
