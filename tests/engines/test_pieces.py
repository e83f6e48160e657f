from __future__ import annotations

import pytest

from xiaozhi_trio.engines.pieces import reply_fault, speech_fault, transcript_fault
from xiaozhi_trio.engines.protocols import PcmChunk, ToolCall, Transcript


@pytest.mark.parametrize(
    ("fault", "piece", "told"),
    [
        (reply_fault, "", ""),
        (reply_fault, "hello", ""),
        (reply_fault, None, "NoneType came, expected text or ToolCall"),
        (reply_fault, b"hello", "bytes came, expected text or ToolCall"),
        (reply_fault, ToolCall("1", "f", "{}"), ""),
        (reply_fault, ToolCall("1", "f", {}), "dict came, expected text in a ToolCall"),
        (reply_fault, ToolCall("1", "f", None), "NoneType came, expected text in a ToolCall"),
        (transcript_fault, Transcript(""), ""),
        (transcript_fault, "hello", "str came, expected Transcript"),
        (transcript_fault, Transcript(None), "NoneType came, expected text in a Transcript"),
        (speech_fault, PcmChunk(b"", 24_000), ""),
        (speech_fault, PcmChunk(b"\0\0", 8_000), ""),
        (speech_fault, b"\0\0", "bytes came, expected PcmChunk"),
        (speech_fault, PcmChunk(b"\0", 24_000), "1 bytes of PCM came, samples are of two"),
        (speech_fault, PcmChunk(b"", 0), "a rate of 0 Hz came, expected 8000 to 192000"),
    ],
)
def test_fault(fault, piece, told) -> None:
    assert fault(piece) == told
