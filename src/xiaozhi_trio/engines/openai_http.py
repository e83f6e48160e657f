"""One OpenAI-compatible server as an engine talks to it.

Requests are tried again only while nothing has come of the answer. One deadline
covers connecting, retries and the first piece; it is renewed piece by piece.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import httpx
import orjson
import trio
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.openai_errors import ErrorTranslator, RequestRefusedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

CONNECT_SECONDS = 5.0
"""Longest wait for one connection; the rest of the deadline is left for a second try."""

RETRY_PAUSES = (0.2, 0.6)
"""Seconds before the second and third try. Somebody is waiting for the answer."""

LONGEST_RETRY_AFTER = 2.0
"""Seconds; a server that asks for a longer pause is not tried again within the turn."""

FINISH_SECONDS = 0.25
"""Longest wait for the end of an answer that is already complete."""

ERROR_BODY_BYTES = 16_384
"""How much of an error answer is read."""

# Turns are many seconds apart; httpx's five would cost each of them a TLS handshake.
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=60.0)


class EndpointSettings(Protocol):
    """What the settings of all OpenAI-compatible engines have in common."""

    @property
    def base_url(self) -> str:
        """Address up to and with /v1."""

    @property
    def api_key(self) -> str:
        """Bearer token; empty sends none."""

    @property
    def model(self) -> str:
        """Model name the server knows."""

    @property
    def timeout_seconds(self) -> float:
        """Longest wait for the next piece of an answer, in seconds."""


@attrs.frozen
class Body:
    """A request body, whole in memory so that it can be sent again."""

    content: bytes = attrs.field(repr=False)
    content_type: str

    @classmethod
    def json(cls, value: Mapping[str, Any]) -> Body:
        """A JSON body. Raises TypeError (`orjson.JSONEncodeError`) for values JSON lacks."""
        return cls(orjson.dumps(value), "application/json")

    @classmethod
    def form(cls, fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes, str]]) -> Body:
        """A multipart form; `files` are (file name, content, content type) by field name."""
        request = httpx.Request("POST", "http://localhost", data=dict(fields), files=dict(files))
        return cls(request.read(), request.headers["content-type"])


class OpenAiServer:
    """The HTTP client of one engine."""

    def __init__(
        self,
        engine: str,
        settings: EndpointSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self.errors = ErrorTranslator(engine, settings.api_key)

    async def load(self) -> None:
        """Check the settings and make the client; nothing is sent.

        Raises `EngineError` naming the setting that cannot work.
        """
        self._check_settings()
        try:
            self._client = await self._open_client()
        except (ImportError, OSError, ValueError) as error:
            raise EngineError(
                f"cannot make an HTTP client: {self.errors.excerpt(str(error))}; check the "
                "environment's proxy and certificate variables",
                engine=self._engine,
                category=EngineErrorCategory.UNAVAILABLE,
            ) from error

    async def aclose(self) -> None:
        """Close all connections; what still runs over them fails."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: Body, *, accept: str) -> AsyncIterator[Answer]:
        """Send a request and give the answer of status 2xx; leaving the block ends it.

        Raises `EngineError` for every other answer and for a server that gives none.
        """
        timeout = self._settings.timeout_seconds
        deadline = trio.current_time() + timeout
        try:
            with trio.fail_at(deadline):
                response = await self._open(self._request(path, body, accept))
        except trio.TooSlowError:
            raise self.errors.timed_out(timeout) from None
        answer = Answer(response, self.errors, timeout, deadline)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _open(self, request: httpx.Request) -> httpx.Response:
        for pause in RETRY_PAUSES:
            try:
                return await self._open_once(request)
            except EngineError as error:
                asked = error.retry_after if isinstance(error, RequestRefusedError) else None
                wait = pause if asked is None else max(pause, asked)
                if not error.retryable or wait > LONGEST_RETRY_AFTER:
                    raise
                logger.bind(engine=self._engine, reason=str(error), pause=wait).warning(
                    "engine request is tried again"
                )
            await trio.sleep(wait)
        return await self._open_once(request)

    async def _open_once(self, request: httpx.Request) -> httpx.Response:
        if self._client is None:
            raise EngineError(
                "used before load() or after aclose()",
                engine=self._engine,
                category=EngineErrorCategory.INTERNAL,
            )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self.errors.broken(error, request.url.host) from error
        if response.is_success:
            return response
        answer = Answer(response, self.errors, self._settings.timeout_seconds)
        try:
            body = await answer.read_up_to(ERROR_BODY_BYTES)
        finally:
            await answer.aclose()
        raise self.errors.refused(response.status_code, response.headers, body)

    def _request(self, path: str, body: Body, accept: str) -> httpx.Request:
        url = httpx.URL(self._settings.base_url.rstrip("/") + path)
        # httpx adds headers of its own only to bodies it has made itself.
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Accept": accept,
            # A compressed answer may be a thousand times what came over the wire.
            "Accept-Encoding": "identity",
            "Content-Length": str(len(body.content)),
            "Content-Type": body.content_type,
            "User-Agent": "xiaozhi-trio",
        }
        if self._settings.api_key:
            headers["Authorization"] = f"Bearer {self._settings.api_key}"
        return httpx.Request("POST", url, headers=headers, stream=_WholeBody(body.content))

    def _check_settings(self) -> None:
        settings = self._settings
        try:
            url = httpx.URL(settings.base_url)
        except httpx.InvalidURL as error:
            raise self._unusable("base_url", str(error)) from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise self._unusable("base_url", "no http:// or https:// address with a host")
        if url.userinfo or url.query or url.fragment:
            raise self._unusable(
                "base_url", "a user, a query or a fragment in it; keys go into api_key"
            )
        if not settings.model.strip():
            raise self._unusable("model", "empty; give the name the server knows its model by")
        key = settings.api_key
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise self._unusable(
                "api_key", "characters no key has, such as a space or a line break; copy it anew"
            )

    def _unusable(self, setting: str, what: str) -> EngineError:
        return EngineError(
            f"{setting} cannot be used: {self.errors.excerpt(what)}",
            engine=self._engine,
            category=EngineErrorCategory.BAD_REQUEST,
        )

    async def _open_client(self) -> httpx.AsyncClient:
        verify: ssl.SSLContext | bool = True
        if self._transport is None:
            # Reading the certificates takes tens of milliseconds.
            verify = await trio.to_thread.run_sync(httpx.create_ssl_context)
        return httpx.AsyncClient(
            transport=self._transport,
            verify=verify,
            limits=_LIMITS,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )


class Answer:
    """An answer as it comes in."""

    def __init__(
        self,
        response: httpx.Response,
        errors: ErrorTranslator,
        timeout_seconds: float,
        deadline: float | None = None,
    ) -> None:
        self.errors = errors
        self._response = response
        # httpx declares an iterator; what it gives is a generator, which has to be closed.
        self._chunks: AsyncGenerator[bytes, None] = response.aiter_bytes()  # type: ignore[assignment]
        self._ahead = b""
        self._timeout = timeout_seconds
        self._deadline = deadline if deadline is not None else trio.current_time() + timeout_seconds

    @property
    def content_type(self) -> str:
        """The media type in lower case and without parameters; empty where none is given."""
        value: str = self._response.headers.get("content-type", "")
        return value.partition(";")[0].strip().lower()

    def expect_next(self) -> None:
        """Renew the deadline: a piece is complete and the wait for the next one begins."""
        self._deadline = trio.current_time() + self._timeout

    async def read_some(self) -> bytes:
        """What comes next of the body, empty at its end.

        Raises `EngineError` at the deadline and where the connection breaks.
        """
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        try:
            with trio.fail_at(self._deadline):
                return await anext(self._chunks, b"")
        except trio.TooSlowError:
            raise self.errors.timed_out(self._timeout) from None
        except httpx.HTTPError as error:
            raise self.errors.broken(error, self._response.request.url.host) from error

    async def peek(self, size: int) -> bytes:
        """At least the next `size` bytes, fewer only at the end; they are read again later."""
        self._ahead = await self.read_up_to(size)
        return self._ahead

    async def read_up_to(self, limit: int) -> bytes:
        """Read until at least `limit` bytes have come or the body ends."""
        body = bytearray()
        while len(body) < limit and (chunk := await self.read_some()):
            body += chunk
        return bytes(body)

    async def finish(self) -> None:
        """Wait a moment for the end of a complete answer, so that its connection can be kept."""
        with trio.move_on_after(FINISH_SECONDS), contextlib.suppress(EngineError):
            while await self.read_some():
                pass

    async def aclose(self) -> None:
        """End the answer wherever it is; an unfinished one takes its connection with it."""
        # Closing an asynchronous generator does not close those it iterates over, and
        # httpx nests six of them. A read that is cancelled unwinds every one.
        with trio.CancelScope(shield=True) as scope, contextlib.suppress(httpx.HTTPError):
            scope.cancel()
            async for _ in self._chunks:
                pass
        await self._response.aclose()


class _WholeBody(httpx.AsyncByteStream):
    """A body as one piece, iterated without a generator that a cancelled send would abandon."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once:
    def __init__(self, content: bytes) -> None:
        self._left: bytes | None = content

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        content, self._left = self._left, None
        if content is None:
            raise StopAsyncIteration
        return content
