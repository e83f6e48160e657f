"""Speech recognition by any server with OpenAI's /audio/transcriptions."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from xiaozhi_trio.engines.openai_errors import find_report
from xiaozhi_trio.engines.openai_http import Body, OpenAiServer
from xiaozhi_trio.engines.protocols import LISTENING_RATE, Transcript

if TYPE_CHECKING:
    import httpx

    from xiaozhi_trio.config.engines import OpenAiRecognizerSettings

NAME = "openai"

_LONGEST_ANSWER_BYTES = 1_048_576

_CODES = {
    "chinese": "zh",
    "mandarin": "zh",
    "cantonese": "yue",
    "english": "en",
    "japanese": "ja",
    "korean": "ko",
}
"""OpenAI's Whisper endpoint names the language in English instead of giving its code."""


class OpenAiRecognizer:
    """`SpeechRecognizer` over HTTP."""

    def __init__(
        self,
        settings: OpenAiRecognizerSettings,
        *,
        name: str = NAME,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._server = OpenAiServer(name, settings, transport=transport)

    @property
    def name(self) -> str:
        """The name it is configured by."""
        return self._name

    async def load(self) -> None:
        """Check the settings; the server is not contacted. Raises `EngineError`."""
        await self._server.load()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    async def transcribe(self, pcm: bytes) -> Transcript:
        """Recognise one utterance; PCM without a sample is not sent. Raises `EngineError`."""
        if len(pcm) < 2:
            return Transcript("")
        request = self._server.post(
            "/audio/transcriptions", self._form(pcm), accept="application/json"
        )
        async with request as answer:
            body = await answer.read_up_to(_LONGEST_ANSWER_BYTES)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise answer.errors.bad_response("the server sent no JSON", body) from error
        text = value.get("text") if isinstance(value, Mapping) else None
        if isinstance(text, str):
            return Transcript(text.strip(), self._language_of(value))
        if (report := find_report(value)) is not None:
            raise answer.errors.reported(report)
        raise answer.errors.bad_response("the server's JSON has no member text", body)

    def _form(self, pcm: bytes) -> Body:
        fields = {
            "model": self._settings.model,
            "language": self._settings.language,
            "prompt": self._settings.prompt,
            "response_format": "json",
        }
        return Body.form(
            {name: value for name, value in fields.items() if value},
            {"file": ("utterance.wav", wav_file(pcm), "audio/wav")},
        )

    def _language_of(self, value: Mapping[str, object]) -> str | None:
        told = value.get("language")
        if isinstance(told, str):
            language = told.lower().partition("-")[0]
            if language in _CODES:
                return _CODES[language]
            if len(language) == 2 and language.isascii() and language.isalpha():
                return language
        return self._settings.language or None


def wav_file(pcm: bytes) -> bytes:
    """PCM at `LISTENING_RATE` as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(LISTENING_RATE)
        writer.writeframes(pcm[: len(pcm) & ~1])
    return file.getvalue()
