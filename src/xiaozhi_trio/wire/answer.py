"""One answer in plain HTTP/1.1, after which the connection is closed."""

from __future__ import annotations

from http import HTTPStatus

import attrs


@attrs.frozen(kw_only=True)
class Answer:
    """A response whose body is known in full."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def phrase(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    @property
    def fields(self) -> list[tuple[str, str]]:
        """All header fields."""
        described = [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
        ]
        return [
            *([] if self.status == HTTPStatus.NO_CONTENT else described),
            *self.headers,
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ]

    def encode(self, method: str = "GET") -> bytes:
        """The bytes to send; to a HEAD without the body."""
        lines = [f"HTTP/1.1 {self.status} {self.phrase}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        return head if method == "HEAD" else head + self.body
