"""A child process that answers requests: one JSON object a line, in and out."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import orjson
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Handler = Callable[..., Awaitable[Mapping[str, Any]]]

_READ_BYTES: Final = 1 << 20
_LONGEST_LINE: Final = 1 << 27
_STOP_SECONDS: Final = 10.0


class ChildFailed(Exception):
    """A child process ended, or could not do what it was asked; the text says why."""


class _Lines:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def next(self) -> bytes | None:
        """The next line, None at the end."""
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            data = await self._stream.receive_some(_READ_BYTES)
            if not data or searched > _LONGEST_LINE:
                return None
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line


class LineProcess:
    """The parent's side. One request at a time."""

    def __init__(self, process: trio.Process, name: str) -> None:
        self._process = process
        self._name = name
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was opened without pipes")
        self._requests: trio.abc.SendStream = process.stdin
        self._answers = _Lines(process.stdout)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ask(self, request: str, **arguments: Any) -> Mapping[str, Any]:
        """What the child answers. Raises `ChildFailed`."""
        try:
            await self._requests.send_all(orjson.dumps({"request": request, **arguments}) + b"\n")
        except trio.BrokenResourceError as error:
            raise ChildFailed(f"the {self._name} process has ended") from error
        line = await self._answers.next()
        if line is None:
            raise ChildFailed(f"the {self._name} process ended during {request!r}")
        try:
            answer: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ChildFailed(f"the {self._name} process answered {line[:200]!r}") from error
        if "failure" in answer:
            raise ChildFailed(
                f"the {self._name} process failed at {request!r}: {answer['failure']}"
            )
        return answer

    async def aclose(self) -> None:
        """Let the child end, which it does where nothing more is asked; else kill it."""
        with trio.move_on_after(_STOP_SECONDS, shield=True):
            await self._requests.aclose()
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def line_process(
    module: str, *arguments: str, name: str, stderr: IO[bytes] | None = None
) -> AsyncIterator[LineProcess]:
    """Run `python -m module` for the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    child = LineProcess(process, name)
    try:
        yield child
    finally:
        await child.aclose()


async def answer_requests(
    handlers: Mapping[str, Handler], *, failures: tuple[type[Exception], ...] = ()
) -> None:
    """The child's side: answer on stdout what is asked on stdin, until that ends.

    What a handler raises of `failures` is told to the parent; other errors end the child.
    """
    async with (
        trio.lowlevel.FdStream(sys.stdin.fileno()) as requests,
        trio.lowlevel.FdStream(sys.stdout.fileno()) as answers,
    ):
        lines = _Lines(requests)
        while (line := await lines.next()) is not None:
            arguments: dict[str, Any] = orjson.loads(line)
            handler = handlers[arguments.pop("request")]
            answer: Mapping[str, Any]
            try:
                answer = await handler(**arguments)
            except failures as error:
                answer = {"failure": f"{type(error).__name__}: {error}"}
            await answers.send_all(orjson.dumps(answer) + b"\n")
