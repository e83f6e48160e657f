"""How much silence is the end: by the words, by silence, by the recogniser, by others."""

from __future__ import annotations

import importlib.metadata
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.session.end_of_turn.registry import (
    GROUP,
    StrategyUnavailable,
    build_end_of_turn,
)
from xiaozhi_trio.session.end_of_turn.strategy import EndOfTurn, Pause
from xiaozhi_trio.testing import ScriptedRecognizer

COMPLETE, UNKNOWN, OPEN = "What time is it?", "the green one", "I would like to have, um"


def settings(**listening) -> Settings:
    return Settings(listening=ListeningSettings(**listening))


async def end_of(talk, chosen: Settings, text: str, *, asr_seconds: float = 0.05) -> float:
    """After how much silence what was said is answered."""
    t = await talk(
        asr=ScriptedRecognizer(text, seconds=asr_seconds),
        settings=chosen,
        end_of_turn=build_end_of_turn(chosen.listening),
        frame_ms=20,
    )
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    began = trio.current_time()
    await t.device.silence(4.0)
    return (await t.device.wait_for("stt")).at - began


@pytest.mark.parametrize(
    ("text", "seconds"), [(COMPLETE, 0.4), (UNKNOWN, 0.6), (OPEN, 1.2), ("是因为", 1.2)]
)
async def test_punctuation(autojump_clock, talk, text, seconds) -> None:
    assert await end_of(talk, Settings(), text) == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize("text", [COMPLETE, OPEN])
async def test_silence(autojump_clock, talk, text) -> None:
    chosen = settings(end_of_turn="silence", end_silence_ms=700)
    assert await end_of(talk, chosen, text) == pytest.approx(0.7, abs=0.05)


async def test_each_silence_is_a_setting(autojump_clock, talk) -> None:
    chosen = settings(complete_silence_ms=300, open_silence_ms=2000)
    assert await end_of(talk, chosen, COMPLETE) == pytest.approx(0.3, abs=0.05)
    assert await end_of(talk, chosen, OPEN) == pytest.approx(2.0, abs=0.05)


async def test_hesitations_are_waited_for_in_long_speeches_too(autojump_clock, talk) -> None:
    """After the last speculation the words still tell."""
    strategy = build_end_of_turn(ListeningSettings())
    t = await talk(asr=ScriptedRecognizer(OPEN), end_of_turn=strategy, frame_ms=20)
    await t.device.hello()
    await t.device.listen("auto")
    for _ in range(5):
        await t.device.speak(0.5)
        await t.device.silence(0.9)
    assert not t.device.of_kind("stt")


async def test_a_slow_recogniser_does_not_delay_the_end(autojump_clock, talk) -> None:
    seconds = await end_of(talk, Settings(), COMPLETE, asr_seconds=0.7)
    assert seconds == pytest.approx(0.1 + 0.7, abs=0.05)


async def test_manual_waits_for_the_button(autojump_clock, talk) -> None:
    chosen = settings(end_of_turn="manual")
    t = await talk(settings=chosen, end_of_turn=build_end_of_turn(chosen.listening))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(8.0)
    assert not t.device.of_kind("stt")
    await t.device.stop_listening()
    await t.device.wait_for("stt")


@pytest.mark.parametrize(("says_ended", "expected"), [(True, 0.0), (False, 600)])
async def test_the_recogniser_decides(says_ended, expected) -> None:
    strategy = build_end_of_turn(ListeningSettings(end_of_turn="recognizer"))
    pause = Pause(pcm=b"", voiced_ms=900, transcript="", says_ended=says_ended)
    assert await strategy.silence_ms(pause) == expected


async def test_words_never_shorten_what_is_short_nor_lengthen_what_is_long() -> None:
    def pause(text: str) -> Pause:
        return Pause(pcm=b"", voiced_ms=900, transcript=text)

    hasty = build_end_of_turn(ListeningSettings(end_silence_ms=200))
    assert await hasty.silence_ms(pause(COMPLETE)) == 200
    patient = build_end_of_turn(ListeningSettings(end_silence_ms=2000))
    assert await patient.silence_ms(pause(OPEN)) == 2000
    manual = build_end_of_turn(ListeningSettings(end_of_turn="manual"))
    assert await manual.silence_ms(pause(COMPLETE)) == math.inf


class Semantic:
    """A strategy of another package, which takes its time."""

    seconds = 0.05

    def __init__(self, settings: ListeningSettings) -> None:
        self.settings = settings
        self.pauses: list[Pause] = []
        self.thinking = 0

    async def silence_ms(self, pause: Pause) -> float:
        self.pauses.append(pause)
        self.thinking += 1
        try:
            await trio.sleep(self.seconds)
        finally:
            self.thinking -= 1
        return 900.0


class Broken(Semantic):
    """One that fails."""

    async def silence_ms(self, pause: Pause) -> float:
        await super().silence_ms(pause)
        raise EngineError("no model", engine="semantic", category=EngineErrorCategory.INTERNAL)


def not_one(_: ListeningSettings) -> str:
    return "nonsense"


def refuses(_: ListeningSettings) -> EndOfTurn:
    raise ValueError("no licence")


@pytest.fixture
def entry_point(monkeypatch):
    """Installs a package with one strategy of this name."""

    def install(name: str, target: str) -> None:
        package = ModuleType("other_package")
        for each in (Semantic, Broken, not_one, refuses):
            setattr(package, each.__name__, each)
        monkeypatch.setitem(sys.modules, package.__name__, package)
        point = importlib.metadata.EntryPoint(name, f"{package.__name__}:{target}", GROUP)
        points = importlib.metadata.EntryPoints([point])
        monkeypatch.setattr(importlib.metadata, "entry_points", points.select)

    return install


async def test_one_of_another_package(autojump_clock, talk, entry_point) -> None:
    entry_point("semantic", "Semantic")
    chosen = settings(end_of_turn="semantic")
    assert await end_of(talk, chosen, COMPLETE) == pytest.approx(0.9, abs=0.05)


async def test_it_is_told_what_was_said_and_cancelled_where_speech_resumes(
    autojump_clock, talk
) -> None:
    strategy = Semantic(ListeningSettings())
    strategy.seconds = 5
    t = await talk(asr=ScriptedRecognizer(OPEN), end_of_turn=strategy, frame_ms=20)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(0.4)
    assert strategy.thinking == 1
    await t.device.speak(0.14)
    assert strategy.thinking == 0
    (pause,) = strategy.pauses
    assert pause.transcript == OPEN
    assert pause.voiced_ms == pytest.approx(1000, abs=60)


async def test_one_that_fails_leaves_the_usual_silence(autojump_clock, talk, entry_point) -> None:
    entry_point("broken", "Broken")
    seconds = await end_of(talk, settings(end_of_turn="broken"), COMPLETE)
    assert seconds == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("nonsense", "not_one", "str, which has no silence_ms"),
        ("licensed", "refuses", "no licence"),
        ("absent", "Absent", "Absent"),
    ],
)
def test_one_that_is_none(entry_point, name, target, told) -> None:
    entry_point(name, target)
    with pytest.raises(StrategyUnavailable, match=told):
        build_end_of_turn(ListeningSettings(end_of_turn=name))


def test_an_unknown_name_is_told_with_those_that_there_are(entry_point) -> None:
    entry_point("semantic", "Semantic")
    with pytest.raises(
        StrategyUnavailable, match=r'came "psychic".*manual, punctuation, recognizer, semantic'
    ):
        build_end_of_turn(ListeningSettings(end_of_turn="psychic"))


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_wrong_name_is_refused_at_start(tmp_path: Path, command) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[listening]\nend_of_turn = "psychic"\n')
    done = subprocess.run(
        [Path(sys.executable).with_name("xiaozhi-trio"), command, "--config", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, -9)
    told = done.stdout + done.stderr
    assert "psychic" in told
    assert "punctuation" in told
    assert "Traceback" not in told
