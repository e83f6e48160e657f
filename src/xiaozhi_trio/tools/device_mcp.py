"""The tools of one device: its MCP server introduces itself and lists them.

The device is the MCP server, this side the client. The handshake is `initialize`,
`notifications/initialized`, then `tools/list` page by page. `initialize` always
carries `capabilities.vision` with both `url` and `token`: xiaozhi-sdk 0.5.1 does not
answer without them, and cameras take from it where to send photos. Pages of the
firmware hold 8000 bytes and `nextCursor` is the name of the first tool left out;
py-xiaozhi repeats a cursor for ever where one tool alone fills a page.

Tools meant for a person only are not asked for (`withUserTools`) and not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

from xiaozhi_trio import __version__
from xiaozhi_trio.tools.jsonrpc_client import CallError, JsonRpcClient
from xiaozhi_trio.tools.tool_listing import ToolListing
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xiaozhi_trio.tools.device_tool import DeviceTool

PROTOCOL_VERSION: Final = "2024-11-05"
"""The MCP revision that the firmware names in its answer."""

MAX_PAGES: Final = 32


class DeviceMcp:
    """The MCP server of the device on one connection.

    `run` is a task of its own beside the session's: turns use `tools` as they are at
    that moment and never wait. Nothing a device answers or leaves unanswered raises
    out of `run` or `receive`.
    """

    def __init__(
        self,
        send: Callable[[Mapping[str, object]], None],
        *,
        vision_url: str,
        vision_token: str,
        initialize_seconds: float = 10.0,
        page_seconds: float = 10.0,
    ) -> None:
        """`send` queues one payload for the device and returns at once.

        `vision_url` and `vision_token` are where and with which bearer token the
        device posts photos. The seconds are the longest wait for the answer to
        `initialize` and for each page of tools.
        """
        self._client = JsonRpcClient(send)
        self._vision = {"url": vision_url, "token": vision_token}
        self._initialize_seconds = initialize_seconds
        self._page_seconds = page_seconds
        self._listing = ToolListing()
        self.ready = trio.Event()
        """Set once the list is complete; never where the handshake failed."""

    @property
    def tools(self) -> tuple[DeviceTool, ...]:
        """The tools known so far: none at first, more with each page, names unique."""
        return self._listing.tools

    async def run(self) -> None:
        """Do the handshake, once per connection; returns when it is done or has failed."""
        try:
            await self._initialize()
            await self._list_tools()
        except CallError as error:
            logger.bind(reason=error.reason, method=error.method, problem=str(error)).warning(
                "device mcp handshake failed"
            )
        except ProtocolViolation as violation:
            logger.bind(reason=violation.reason, problem=str(violation)).warning(
                "device mcp handshake failed"
            )
        else:
            logger.bind(tools=len(self.tools)).info("device mcp ready")
            self.ready.set()

    def receive(self, payload: object) -> None:
        """Take the payload of one `mcp` message, whatever it is; returns at once."""
        self._client.receive(payload)

    async def request(
        self, method: str, params: Mapping[str, object] | None = None, *, within: float
    ) -> object:
        """Ask the device's MCP server; see `JsonRpcClient.request`."""
        return await self._client.request(method, params, within=within)

    async def _initialize(self) -> None:
        # What it answers is not looked at: all clients list tools whatever they declare.
        await self._client.request(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "capabilities": {
                    "roots": {"listChanged": True},
                    "sampling": {},
                    "vision": self._vision,
                },
                "clientInfo": {"name": "xiaozhi-trio", "version": __version__},
            },
            within=self._initialize_seconds,
        )
        self._client.notify("notifications/initialized")

    async def _list_tools(self) -> None:
        cursors: set[str] = set()
        params: Mapping[str, object] | None = None
        for _ in range(MAX_PAGES):
            page = await self._client.request("tools/list", params, within=self._page_seconds)
            cursor = self._listing.add(page)
            if not cursor:
                return
            if cursor in cursors:
                logger.bind(reason="cursor_repeated").warning("device tool list cut")
                return
            cursors.add(cursor)
            params = {"cursor": cursor}
        logger.bind(reason="too_many_pages", limit=MAX_PAGES).warning("device tool list cut")
