"""Devices that do anything at any time, engines that fail at any time: what always holds."""

from __future__ import annotations

import itertools
import re
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from xiaozhi_trio.config.settings import (
    ConversationSettings,
    LimitSettings,
    ListeningSettings,
    PlayoutSettings,
    Settings,
)
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)
from xiaozhi_trio.testing.engines import LoudnessStream
from xiaozhi_trio.wire.closing import Closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HANGS = 1e6
LONGEST = 1000.0
"""Virtual seconds after which nothing of any of these conversations may live."""


def broken() -> EngineError:
    return EngineError("out of order", engine="scripted", category=EngineErrorCategory.INTERNAL)


@attrs.frozen
class Moods:
    """What an engine does the next times it is asked: seconds to take, and how it ends."""

    moods: list[tuple[float, str]]

    def __iter__(self) -> Iterator[tuple[float, str]]:
        while True:
            yield from self.moods


class MoodyRecognizer(ScriptedRecognizer):
    def __init__(self, moods: Moods, numbers: Iterator[int]) -> None:
        super().__init__()
        self.moods = iter(moods)
        self.numbers = numbers

    async def transcribe(self, pcm: bytes) -> Transcript:
        seconds, ending = next(self.moods)
        number = next(self.numbers)
        # A model in a thread finishes what it has begun, cancelled or not.
        with trio.CancelScope(shield=ending == "stubborn"):
            await trio.sleep(seconds)
        if ending == "fails":
            raise broken()
        return Transcript("" if ending == "empty" else f"Question {number}")


class MoodyLanguageModel(ScriptedLanguageModel):
    def __init__(self, moods: Moods) -> None:
        super().__init__()
        self.moods = iter(moods)

    @asynccontextmanager
    async def reply(self, messages) -> AsyncIterator[AsyncIterator[str]]:
        self.dialogues.append(list(messages))
        number = len(self.dialogues)
        self.generating += 1
        pieces = self.pieces(number, *next(self.moods))
        try:
            yield pieces
        finally:
            self.generating -= 1
            await pieces.aclose()

    async def pieces(self, number: int, seconds: float, ending: str) -> AsyncIterator[str]:
        await trio.sleep(seconds)
        for _ in range(0 if ending == "empty" else 3):
            yield f"Reply {number} goes on. "
            await trio.sleep(seconds)
        if ending == "fails":
            raise broken()


class MoodySynthesizer(ScriptedSynthesizer):
    def __init__(self, moods: Moods) -> None:
        super().__init__(chunk_ms=200)
        self.moods = iter(moods)

    async def _chunks(self, sentence: str):
        seconds, ending = next(self.moods)
        with trio.CancelScope(shield=ending == "stubborn"):
            await trio.sleep(seconds)
        if ending == "empty":
            return
        async with aclosing(super()._chunks(sentence)) as chunks:
            async for chunk in chunks:
                yield chunk
                if ending == "fails":
                    raise broken()


class MoodyDetector(LoudnessDetector):
    def __init__(self, moods: Moods) -> None:
        super().__init__()
        self.moods = iter(moods)

    def open_stream(self) -> LoudnessStream:
        stream = LoudnessStream(500)
        accept = stream.accept

        async def moody(pcm: bytes):
            if next(self.moods)[1] == "fails":
                await trio.lowlevel.checkpoint()
                raise broken()
            return await accept(pcm)

        stream.accept = moody
        return stream


ENDINGS = st.sampled_from(["well", "well", "well", "empty", "fails", "stubborn"])


def moods(*seconds: float) -> st.SearchStrategy[Moods]:
    mood = st.tuples(st.sampled_from(seconds), ENDINGS)
    return st.builds(Moods, st.lists(mood, min_size=1, max_size=4))


def finite(mood: Moods) -> Moods:
    """A hang that cannot be cancelled is no engine that anybody promised to bear."""
    return Moods([(min(s, 1.0) if e == "stubborn" else s, e) for s, e in mood.moods])


LENGTHS = st.sampled_from([0.06, 0.18, 0.24, 0.66, 1.2, 2.4])
STEPS = st.one_of(
    st.tuples(st.just("hello"), st.sampled_from([{}, {"features": {"aec": True}}])),
    st.tuples(st.just("listen"), st.sampled_from(["auto", "manual", "realtime", "telepathy"])),
    st.tuples(st.just("stop")),
    st.tuples(st.just("detect"), st.sampled_from(["你好小智", "Question {}", " "])),
    st.tuples(st.just("abort")),
    st.tuples(st.just("ask"), st.sampled_from(["auto", "manual", "realtime"])),
    st.tuples(st.just("speak"), LENGTHS, st.booleans()),
    st.tuples(st.just("silence"), LENGTHS, st.booleans()),
    st.tuples(
        st.just("raw"),
        st.sampled_from(["", "[]", '{"type":"iot"}', b"", b"\0", b"\xff" * 40, b"\x0b" * 3]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.1, 0.5, 3.0, 12.0])),
)
ENDS = st.sampled_from(["hang up", "end", "idle", "idle"])


async def take_step(t, step, numbers: Iterator[int]) -> None:
    match step:
        case "hello", changes:
            body = {"type": "hello", "version": 1, "transport": "websocket", **changes}
            await t.device.send_json(**body)
        case "listen", mode:
            await t.device.listen(mode)
        case ("stop",):
            await t.device.stop_listening()
        case "detect", text:
            await wait_all_tasks_blocked()
            await t.device.detect(text.format(next(numbers)))
        case "ask", mode:
            await t.device.listen(mode)
            await t.device.speak(0.66, burst=True)
            await t.device.silence(0.72, burst=True)
            if mode == "manual":
                await t.device.stop_listening()
        case ("abort",):
            await abort(t)
        case "speak", seconds, burst:
            await t.device.speak(seconds, burst=burst)
        case "silence", seconds, burst:
            await t.device.silence(seconds, burst=burst)
        case "raw", payload:
            await t.device.send_raw(payload)
        case "wait", seconds:
            await trio.sleep(seconds)


async def abort(t) -> None:
    await wait_all_tasks_blocked()
    before = t.device.kinds.count("tts stop")
    await t.device.abort()
    await wait_all_tasks_blocked()
    if "slow" in t.session.outbox.next_payload.__name__:
        return
    if t.closing is None and t.device.of_kind("hello"):
        assert t.device.kinds.count("tts stop") == before + 1, t.device.kinds


def read_slowly(t, lag: float) -> None:
    """A network that takes `lag` seconds for each message."""
    taken = t.session.outbox.next_payload

    async def slow() -> str | bytes:
        payload = await taken()
        await trio.sleep(lag)
        return payload

    t.session.outbox.next_payload = slow


async def live(talk_in, engines, steps, end, audio, lag) -> None:
    with trio.fail_after(LONGEST):
        async with trio.open_nursery() as nursery:
            vad, asr, llm, tts = map(finite, engines)
            numbers = itertools.count()
            t = await talk_in(
                nursery,
                vad=MoodyDetector(vad),
                asr=MoodyRecognizer(asr, numbers),
                llm=MoodyLanguageModel(llm),
                tts=MoodySynthesizer(tts),
                settings=audio,
            )
            if lag:
                read_slowly(t, lag)
            with suppress(trio.BrokenResourceError):
                for step in steps:
                    await take_step(t, step, numbers)
                if end == "hang up":
                    t.link.hang_up()
            if end == "end":
                t.session.end(Closing(1001, "server_shutdown"))
            await t.device.wait_for_hang_up()
    assert t.closing is not None
    assert (t.llm.generating, t.tts.speaking) == (0, 0)
    assert_consistent(t)


def assert_consistent(t) -> None:
    kinds = t.device.kinds
    assert kinds.count("hello") <= 1, kinds
    speaking = False
    newest = 0
    for event in t.device.events:
        match event.kind:
            case "tts start":
                assert not speaking, kinds
                speaking = True
            case "tts stop":
                speaking = False
            case "audio" | "tts sentence_start":
                assert speaking, kinds
        if event.kind == "tts sentence_start" and event.body["text"].startswith("Reply"):
            number = int(event.body["text"].split()[1])
            assert number >= newest, kinds
            newest = number
    assert not speaking, kinds
    shown = " ".join(event.body["text"] for event in t.device.of_kind("tts sentence_start"))
    for dialogue in t.llm.dialogues:
        roles = [message.role for message in dialogue]
        assert roles == ["system", *(["user", "assistant"] * 20)[: len(roles) - 2], "user"]
        asked = [int(n) for m in dialogue[1::2] for n in re.findall(r"Question (\d+)", m.content)]
        assert asked == sorted(asked), dialogue
        for message in dialogue[2::2]:
            for part in message.content.split("\n"):
                assert part in shown, (part, shown)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    engines=st.tuples(
        moods(0.0), moods(0.0, 0.3, 2.0, HANGS), moods(0.0, 0.3, HANGS), moods(0.0, 0.3, HANGS)
    ),
    steps=st.lists(STEPS, min_size=4, max_size=20),
    end=ENDS,
    polite=st.integers(0, 5).map(bool),
    pre_roll_ms=st.sampled_from([0, 500]),
    lag=st.sampled_from([0.0, 0.0, 0.1]),
)
def test_whatever_happens_the_device_is_left_in_order(
    talk_in, engines, steps, end, polite, pre_roll_ms, lag
) -> None:
    audio = Settings(
        listening=ListeningSettings(idle_seconds=20, pre_roll_ms=pre_roll_ms),
        limits=LimitSettings(hello_seconds=5),
        playout=PlayoutSettings(),
        conversation=ConversationSettings(
            recognition_seconds=5, first_token_seconds=5, synthesis_seconds=5
        ),
    )
    if polite:
        steps = [("hello", {}), *steps]
    trio.run(live, talk_in, engines, steps, end, audio, lag, clock=MockClock(autojump_threshold=0))
