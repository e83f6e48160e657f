"""What is played: what is said, how the server listens, and what scripted engines do."""

from __future__ import annotations

from typing import Final

import attrs

from xiaozhi_trio.config.settings import ListeningSettings
from xiaozhi_trio.session.segmentation import SentenceSegmenter

_SENTENCE: Final = "Once upon a time there was a little server."
_WAITING: Final = ListeningSettings(speculation=False)
"""What engines take while the user may still go on could not be told from the server's time."""


@attrs.frozen(kw_only=True)
class Script:
    """What ends in `_ms` is milliseconds."""

    said_ms: tuple[int, ...] = (1500,)
    """What a user says, voice and pauses in turns."""
    heard: str = "Tell me."
    """What they are understood to have said; says nothing about whether that is all."""
    listening: ListeningSettings = _WAITING
    """Of a server started here."""
    recognition_ms: int = 200
    first_token_ms: int = 400
    token_ms: int = 0
    synthesis_ms: int = 100
    """Before the first audio of each sentence."""
    chunk_ms: int = 0
    """Audio in one piece of synthesised speech; 0 for whole sentences."""
    sentence: str = _SENTENCE
    sentences: int = 3
    sentence_ms: int = 2400

    def reply(self) -> list[str]:
        """The reply in the pieces in which a language model writes it."""
        return [f"{word} " for word in self.sentence.split()] * self.sentences

    def ms_before_speech(self, start_gap_ms: int) -> int:
        """What is not the server's own of the time from the end of a turn to its first frame.

        The engines' delays, and as much of the gap after `tts start` as they leave over.
        """
        segmenter = SentenceSegmenter()
        tokens = next(number for number, piece in enumerate(self.reply()) if segmenter.feed(piece))
        thinking = self.first_token_ms + self.token_ms * tokens
        return self.recognition_ms + max(thinking + self.synthesis_ms, start_gap_ms)
