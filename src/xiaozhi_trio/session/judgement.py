"""Whether what a microphone heard was said to us.

A recogniser finds words in noise, a microphone beside a loudspeaker hears the reply,
and people who listen say "uh-huh": none of that is a turn.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.session.backchannel import is_backchannel
from xiaozhi_trio.session.echo_text import repeats
from xiaozhi_trio.session.phantoms import is_phantom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.engines.protocols import Transcript

_JUDGED_CHARACTERS: Final = 4_000
"""Of a transcript: more than four minutes of speech. To judge all of what a recogniser says that
never ends would keep every other device waiting, half a second for a quarter of a megabyte."""


class Verdict(enum.Enum):
    """What a transcript is."""

    SPEECH = "speech"
    """Somebody said it to us."""
    NOISE = "noise"
    """Words that a recogniser finds where there are none."""
    ECHO = "echo"
    """Our own reply."""
    BACKCHANNEL = "backchannel"
    """A sign of listening, with no wish to interrupt."""


def judge(
    transcript: Transcript,
    *,
    voiced_ms: int,
    languages: Sequence[str],
    interrupts: bool,
    saying: str,
) -> Verdict:
    """Judge a transcript.

    `languages` are those expected, empty for any; `interrupts` tells that a reply was
    being spoken; `saying` is what the loudspeaker said meanwhile, empty for nothing.
    """
    text = transcript.text[:_JUDGED_CHARACTERS]
    if saying and repeats(text, saying):
        return Verdict.ECHO
    if interrupts and is_backchannel(text):
        return Verdict.BACKCHANNEL
    if is_phantom(text, voiced_ms, language=transcript.language, expected=languages):
        return Verdict.NOISE
    return Verdict.SPEECH
