"""What takes long for a long text is not done with all of it: the loop is everybody's."""

from __future__ import annotations

from xiaozhi_trio.config.settings import ConversationSettings
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.session import judgement
from xiaozhi_trio.session.judgement import Verdict, judge
from xiaozhi_trio.session.wake_words import WakeWords


def test_an_endless_transcript_is_judged_by_its_beginning(monkeypatch) -> None:
    lengths: list[int] = []

    def measured(text: str, *_: object, **__: object) -> bool:
        lengths.append(len(text))
        return False

    for name in ("is_phantom", "is_backchannel", "repeats"):
        monkeypatch.setattr(judgement, name, measured)
    verdict = judge(
        Transcript("no end to it " * 20_000),
        voiced_ms=500,
        languages=(),
        interrupts=True,
        saying="I say it once more.",
    )
    assert verdict is Verdict.SPEECH
    assert lengths == [4_000] * 3


def test_a_text_without_end_is_no_wake_word() -> None:
    words = WakeWords(ConversationSettings(wake_words=("hi there",), greeting_en="Yes?"))
    assert words.greeting_for("Hi, there!") == "Yes?"
    assert words.greeting_for("Hi, there" + "!" * 200) is None
