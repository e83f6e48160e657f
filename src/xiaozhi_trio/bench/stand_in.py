"""An OpenAI-compatible server in place of models: it keeps to the script and understands nothing.

Recognition, a streamed reply and speech over HTTP, for the real HTTP engines of the
server under test and for any other server that can be pointed at such an address.
Run as `python -m xiaozhi_trio.bench.stand_in` it answers `start` with its address and
serves until its stdin ends.
"""

from __future__ import annotations

import io
import socket
import wave
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import cattrs
import orjson
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_asgi
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from xiaozhi_trio.bench.line_process import answer_requests
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.voice import voice
from xiaozhi_trio.http.body import read_body
from xiaozhi_trio.http.errors import RequestRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from hypercorn.typing import ASGIFramework
    from starlette.requests import Request
    from starlette.types import Send

PCM_RATE: Final = 24_000
"""Hz of the speech, which is what OpenAI gives for the format pcm."""

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024
_BODY_BYTES: Final = 16 * 1024 * 1024
_BODY_SECONDS: Final = 30.0
_KEEP_ALIVE_SECONDS: Final = 60.0
"""As long as our engines keep a connection."""
_GRACE_SECONDS: Final = 0.1
_PCM: Final = "pcm"
_WAV: Final = "wav"


class _Stream(StreamingResponse):
    """Closes what it streams also where the client leaves before its end."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[bytes, None]", self.body_iterator)):
            await super().stream_response(send)


@attrs.frozen
class StandIn:
    """The three endpoints."""

    script: Script

    async def transcribe(self, request: Request) -> Response:
        """`POST /v1/audio/transcriptions`: any audio is the same question."""
        await _body_of(request)
        await trio.sleep(self.script.recognition_ms / 1000)
        return JSONResponse({"text": self.script.heard})

    async def complete(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: the reply, streamed if so asked."""
        asked = await _json_of(request)
        if asked.get("stream"):
            return _Stream(self._events(), media_type="text/event-stream")
        await trio.sleep(self.script.first_token_ms / 1000)
        message = {"role": "assistant", "content": "".join(self.script.reply())}
        return JSONResponse(
            _completion("chat.completion", {"message": message, "finish_reason": "stop"})
        )

    async def _events(self) -> AsyncIterator[bytes]:
        await trio.sleep(self.script.first_token_ms / 1000)
        for number, piece in enumerate(self.script.reply()):
            if number and self.script.token_ms:
                await trio.sleep(self.script.token_ms / 1000)
            yield _event({"delta": {"content": piece}, "finish_reason": None})
        yield _event({"delta": {}, "finish_reason": "stop"})
        yield b"data: [DONE]\n\n"

    async def speak(self, request: Request) -> Response:
        """`POST /v1/audio/speech`: a sentence, as raw samples or as a WAV file."""
        asked = (await _json_of(request)).get("response_format")
        if asked not in {_PCM, _WAV}:
            raise RequestRefused(
                400, "format_unknown", "response_format is none of pcm and wav; ask for one of them"
            )
        pcm = voice(self.script.sentence_ms, PCM_RATE)
        return _Stream(
            self._pieces(pcm if asked == _PCM else _wav_file(pcm)), media_type=f"audio/{asked}"
        )

    async def _pieces(self, audio: bytes) -> AsyncIterator[bytes]:
        await trio.sleep(self.script.synthesis_ms / 1000)
        size = PCM_RATE * self.script.chunk_ms // 1000 * 2 or len(audio)
        for start in range(0, len(audio), size):
            yield audio[start : start + size]


def build_app(script: Script) -> Starlette:
    """The application; needs Trio."""
    endpoints = StandIn(script)
    return Starlette(
        routes=[
            Route("/v1/audio/transcriptions", endpoints.transcribe, methods=["POST"]),
            Route("/v1/chat/completions", endpoints.complete, methods=["POST"]),
            Route("/v1/audio/speech", endpoints.speak, methods=["POST"]),
        ],
        exception_handlers={RequestRefused: _answer_refused, ClientDisconnect: _answer_nobody},
    )


async def serve(
    script: Script,
    *,
    port: int = 0,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on the loopback address until `shutdown`; reports the address up to and with /v1.

    Raises `OSError` where the port cannot be had.
    """
    voice(script.sentence_ms, PCM_RATE)
    listening = socket.create_server((_HOST, port), backlog=_BACKLOG)
    base_url = f"http://{_HOST}:{listening.getsockname()[1]}/v1"
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = config.accesslog = None
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    config.graceful_timeout = _GRACE_SECONDS
    async with trio.open_nursery() as nursery:
        app = cast("ASGIFramework", build_app(script))
        await nursery.start(
            partial(serve_asgi, app, config, shutdown_trigger=shutdown.wait, mode="asgi")
        )
        task_status.started(base_url)


async def _body_of(request: Request) -> bytes:
    return await read_body(request, limit=_BODY_BYTES, seconds=_BODY_SECONDS)


async def _json_of(request: Request) -> Mapping[str, Any]:
    try:
        value = orjson.loads(await _body_of(request))
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, Mapping):
        raise RequestRefused(400, "no_json", "the body is no JSON object; send one")
    return value


def _completion(kind: str, choice: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "id": "chatcmpl-scripted",
        "object": kind,
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, **choice}],
    }


def _event(choice: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(_completion("chat.completion.chunk", choice)) + b"\n\n"


def _wav_file(pcm: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(PCM_RATE)
        writer.writeframes(pcm)
    return file.getvalue()


async def _answer_refused(_request: Request, failure: Exception) -> Response:
    refused = cast("RequestRefused", failure)
    error = {"message": refused.message, "type": "invalid_request_error", "code": refused.reason}
    return JSONResponse({"error": error}, refused.status)


async def _answer_nobody(_request: Request, _failure: Exception) -> Response:
    return Response(status_code=400)


async def main() -> None:
    """Serve until stdin ends."""
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:

        async def start(*, script: Mapping[str, Any]) -> Mapping[str, Any]:
            base_url: str = await nursery.start(
                partial(serve, cattrs.structure(script, Script), shutdown=shutdown)
            )
            return {"base_url": base_url}

        await answer_requests({"start": start}, failures=(OSError,))
        shutdown.set()


if __name__ == "__main__":
    trio.run(main)
