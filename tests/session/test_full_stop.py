from __future__ import annotations

import pytest

from xiaozhi_trio.session.full_stop import Continuation, what_continues


@pytest.mark.parametrize(
    ("before", "continuation"),
    [
        ("", Continuation.NEVER),
        ("Hello there", Continuation.NEVER),
        ("It is 3", Continuation.SMALL_LETTER),
        ("It is 300", Continuation.NEVER),
        ("am 3", Continuation.ALWAYS),
        ("der 2", Continuation.ALWAYS),
        ("z", Continuation.ALWAYS),
        ("z. B", Continuation.ALWAYS),
        ("d. h", Continuation.ALWAYS),
        ("т. е", Continuation.ALWAYS),
        ("и т. д", Continuation.SMALL_LETTER),
        ("at 5 p. m", Continuation.SMALL_LETTER),
        ("solve for x", Continuation.SMALL_LETTER_OR_DIGIT),
        ("see p", Continuation.SMALL_LETTER_OR_DIGIT),
        ("в 2020 г", Continuation.SMALL_LETTER_OR_DIGIT),
        ("на ул", Continuation.ALWAYS),
        ("El Sr", Continuation.ALWAYS),
        ("usw", Continuation.SMALL_LETTER),
        ("die Nr", Continuation.DIGIT),
        ("Größe", Continuation.NEVER),
        ("It was 1999", Continuation.NEVER),
        ("1999", Continuation.NEVER),
        ("at 12:30", Continuation.NEVER),
        ("version 3.11", Continuation.NEVER),
        ("so do I", Continuation.NEVER),
        ("我选方案A", Continuation.NEVER),
        ("on example.com", Continuation.NEVER),
        ("Mr", Continuation.ALWAYS),
        ("and DR", Continuation.ALWAYS),
        ("e.g", Continuation.ALWAYS),
        ("(i.e", Continuation.ALWAYS),
        ("the U.S", Continuation.ALWAYS),
        ("在U.S", Continuation.ALWAYS),
        ("J", Continuation.ALWAYS),
        ("J. K", Continuation.ALWAYS),
        ("John F", Continuation.ALWAYS),
        ("1", Continuation.ALWAYS),
        ("  **12", Continuation.ALWAYS),
        ("Steps: 1", Continuation.ALWAYS),
        ("步骤：1", Continuation.ALWAYS),
        ("好。\n- 2", Continuation.ALWAYS),
        ("etc", Continuation.SMALL_LETTER),
        ("at 5 p.m", Continuation.SMALL_LETTER),
        ("Apple Inc", Continuation.SMALL_LETTER),
        ("see No", Continuation.DIGIT),
        ("on Jan", Continuation.DIGIT),
    ],
)
def test_what_shows_that_the_sentence_goes_on(before: str, continuation: Continuation) -> None:
    assert what_continues(before) is continuation
