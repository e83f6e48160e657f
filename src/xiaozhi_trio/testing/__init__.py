"""Shipped with the server, like `trio.testing`: a simulated device and scripted engines.

All of it runs on Trio's clock and without threads, so that a test on a virtual
clock lives through minutes of conversation in milliseconds.
"""

from xiaozhi_trio.testing.device import Event, Link, MemoryLink, SimulatedDevice
from xiaozhi_trio.testing.encoding import encode_inline
from xiaozhi_trio.testing.engines import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedStreamingRecognizer,
    ScriptedSynthesizer,
    Tone,
)

__all__ = [
    "Event",
    "Link",
    "LoudnessDetector",
    "MemoryLink",
    "ScriptedLanguageModel",
    "ScriptedRecognizer",
    "ScriptedStreamingRecognizer",
    "ScriptedSynthesizer",
    "SimulatedDevice",
    "Tone",
    "encode_inline",
]
