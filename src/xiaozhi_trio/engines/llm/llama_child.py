"""The process of the embedded language model, as the server sees it.

Started, spoken to over HTTP on the loopback address, and ended. What it runs is
`llama_process`.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import attrs
import httpx
import orjson
import trio
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.event_stream import EventStreamError, EventStreamParser
from xiaozhi_trio.engines.llm.llama_process import NAME
from xiaozhi_trio.engines.openai_errors import RequestRefusedError
from xiaozhi_trio.engines.openai_http import Body, OpenAiServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from xiaozhi_trio.engines.llm.llama_process import ModelParameters
    from xiaozhi_trio.engines.openai_http import Answer

# Without -P, Python would import from the working directory first.
COMMAND = (sys.executable, "-P", "-m", "xiaozhi_trio.engines.llm.llama_process")
"""Runs `llama_process`."""

LOAD_SECONDS = 120.0
"""Longest wait for the model, also for a large one on a slow disk."""
SILENT_SECONDS = 30.0
"""Longest wait for the next event of an answer; reading a prompt gives one per batch."""
CLOSE_SECONDS = 2.0
"""What the process is given to end by itself."""
KILL_SECONDS = 1.0
"""Longest wait for a killed process; more would be the kernel's fault."""

_LONGEST_LINE = 8192
_SHOWN_CHARACTERS = 300
_LINES_KEPT = 4
_DONE = "[DONE]"

_END_OF_PROCESS = frozenset({EngineErrorCategory.CONNECTIVITY, EngineErrorCategory.TIMEOUT})


class LlamaChild:
    """A process that serves one model."""

    def __init__(self, process: trio.Process, secret: str, engine: str) -> None:
        self._engine = engine
        self._process = process
        self._stdin = cast("trio.abc.SendStream", process.stdin)
        self._stdout = cast("trio.abc.ReceiveStream", process.stdout)
        self._stderr = cast("trio.abc.ReceiveStream", process.stderr)
        self._secret = secret
        self._server: OpenAiServer | None = None
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ending = False
        self._unexpected = True
        self._ended = trio.Event()

    @classmethod
    async def start(
        cls,
        parameters: ModelParameters,
        *,
        engine: str = NAME,
        command: Sequence[str] = COMMAND,
    ) -> LlamaChild:
        """Start the process and wait until it serves the model.

        `engine` is the name of the engine in the log and in errors.
        Raises `EngineError` with what the process told. No process is left behind by an
        error or a cancellation.
        """
        try:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C in a terminal is sent to every process of its group.
                start_new_session=True,
            )
        except OSError as error:
            raise _internal(engine, f"cannot start a process: {error}") from error
        child = cls(process, parameters.api_key, engine)
        # The process outlives the caller, and so does what reads its words.
        trio.lowlevel.spawn_system_task(child._watch)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(child.kill)
            try:
                with trio.fail_after(LOAD_SECONDS):
                    await child._load(parameters)
            except trio.TooSlowError:
                raise EngineError(
                    f"the model was not loaded within {LOAD_SECONDS:g} s",
                    engine=engine,
                    category=EngineErrorCategory.TIMEOUT,
                    retryable=True,
                ) from None
            stack.pop_all()
        return child

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False once the process has ended or is being ended."""
        return not self._ending and self._process.returncode is None

    async def ask(self, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events that answer a request for a chat completion, as they come.

        Closing the generator makes the model stop. A refusal is one event with `error`,
        as errors inside of an answer are. Raises `EngineError`, with which the process is
        ended where it broke the connection off or was silent.
        """
        if self._server is None:
            raise _internal(self._engine, "asked before it was loaded")
        try:
            async with (
                self._server.post(
                    "/chat/completions", Body.json(request), accept="text/event-stream"
                ) as answer,
                contextlib.aclosing(_events(answer)) as events,
            ):
                async for event in events:
                    yield event
        except RequestRefusedError as error:
            told = _json_object(error.body)
            if told is None or "error" not in told:
                raise
            refusal = told
        except EngineError as error:
            if error.category not in _END_OF_PROCESS:
                raise
            await self._end(0)
            raise EngineError(
                f"its process {self._complaint(error)}; the next reply starts a new one",
                engine=self._engine,
                category=error.category,
                retryable=True,
            ) from error
        else:
            return
        yield refusal

    async def aclose(self) -> None:
        """Let the process end, within `CLOSE_SECONDS`; it is killed where it does not."""
        self._unexpected = False
        await self._end(CLOSE_SECONDS)

    async def kill(self) -> None:
        """End the process at once."""
        self._unexpected = False
        await self._end(0)

    async def _load(self, parameters: ModelParameters) -> None:
        try:
            await self._stdin.send_all(json.dumps(attrs.asdict(parameters)).encode() + b"\n")
            line = await self._first_line()
        except trio.BrokenResourceError:
            line = b""
        match _json_object(line):
            case {"url": str(url)}:
                server = OpenAiServer(
                    self._engine,
                    _Endpoint(f"{url}/v1", self._secret, timeout_seconds=SILENT_SECONDS),
                    transport=await trio.to_thread.run_sync(_loopback_transport),
                )
                await server.load()
                self._server = server
            case {"error": str(error), "category": str(category)}:
                await self.kill()
                raise EngineError(
                    error + self._said(),
                    engine=self._engine,
                    category=EngineErrorCategory(category),
                )
            case _:
                with trio.move_on_after(KILL_SECONDS):
                    await self._ended.wait()
                await self.kill()
                raise _internal(
                    self._engine, f"its process {self._how_it_ended()} instead of loading the model"
                )

    async def _first_line(self) -> bytes:
        """The one line of the standard output; less where that ends or is no such line."""
        line = b""
        while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            chunk = await self._stdout.receive_some(_LONGEST_LINE)
            if not chunk:
                break
            line += chunk
        return line

    async def _watch(self) -> None:
        """Log what the process writes to its standard error, and that it ended."""
        try:
            await self._relay()
            status = await self._process.wait()
        finally:
            self._ended.set()
        if self._unexpected:
            logger.bind(engine=self._engine, status=status, said=list(self._last_lines)).error(
                "language model's process ended"
            )

    async def _relay(self) -> None:
        rest = b""
        with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            async for chunk in self._stderr:
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines.append(rest)
                    rest = b""
                for line in lines:
                    self._note(line)
        self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").replace(self._secret, "***").strip()
        if text := text[:_SHOWN_CHARACTERS]:
            self._last_lines.append(text)
            logger.bind(engine=self._engine, line=text).debug("language model's process said")

    async def _end(self, grace: float) -> None:
        self._ending = True
        with trio.CancelScope(shield=True):
            if self._server is not None:
                await self._server.aclose()
            await self._stdin.aclose()
            with trio.move_on_after(grace):
                await self._process.wait()
            self._process.kill()
            with trio.move_on_after(KILL_SECONDS):
                await self._ended.wait()
            await self._stdout.aclose()
            await self._stderr.aclose()

    def _complaint(self, error: EngineError) -> str:
        if error.category is EngineErrorCategory.TIMEOUT:
            return f"gave nothing for {SILENT_SECONDS:g} s"
        return self._how_it_ended()

    def _how_it_ended(self) -> str:
        status = self._process.returncode
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return f"ended with {how}{self._said()}"

    def _said(self) -> str:
        return f" ({'; '.join(self._last_lines)})" if self._last_lines else ""


@attrs.frozen
class _Endpoint:
    """`EndpointSettings` of the process."""

    base_url: str
    api_key: str = attrs.field(repr=False)
    timeout_seconds: float
    model: str = NAME


def _loopback_transport() -> httpx.AsyncHTTPTransport:
    # The process has one thread for connections, and one that is kept would hold it.
    return httpx.AsyncHTTPTransport(
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def _events(answer: Answer) -> AsyncGenerator[dict[str, Any], None]:
    parser = EventStreamParser()
    while chunk := await answer.read_some():
        try:
            events = parser.feed(chunk)
        except EventStreamError as error:
            raise answer.errors.bad_response(str(error)) from error
        for data in events:
            if data == _DONE:
                return
            if (event := _json_object(data)) is None:
                raise answer.errors.bad_response("the process sent no JSON object", data)
            yield event
            answer.expect_next()


def _json_object(data: bytes | str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _internal(engine: str, message: str) -> EngineError:
    return EngineError(message, engine=engine, category=EngineErrorCategory.INTERNAL)
