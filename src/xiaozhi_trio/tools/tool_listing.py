"""A device's list of tools, collected page by page within bounds."""

from __future__ import annotations

from typing import Final

from loguru import logger

from xiaozhi_trio.tools.device_tool import MAX_NAME_CHARACTERS, DeviceTool, parse_tool
from xiaozhi_trio.wire.violation import ProtocolViolation

MAX_TOOLS: Final = 128
"""Entries that are looked at, whether they are kept or not; language models take no more."""
MAX_LISTED_BYTES: Final = 131_072
"""Size of all kept tools together, as JSON."""
MAX_CURSOR_CHARACTERS: Final = 512
MAX_DROPS_LOGGED: Final = 8
"""Entries left out that are logged on one connection."""


class ToolListing:
    """The tools of the pages so far.

    A malformed entry, a second one of the same name and what exceeds the bounds are
    left out and logged; tools meant for a person only are left out silently.
    """

    def __init__(self) -> None:
        self.tools: tuple[DeviceTool, ...] = ()
        """Names are unique; the first entry of a name counts."""
        self._names: set[str] = set()
        self._entries = 0
        self._bytes = 0
        self._drops = 0

    def add(self, page: object) -> str:
        """Take one `tools/list` result; give the cursor of the next page, empty at the end.

        Raises `ProtocolViolation` where the result is not a page or its cursor none;
        the tools of such a page are kept as far as they are good.
        """
        entries = page.get("tools") if isinstance(page, dict) else None
        if not isinstance(page, dict) or not isinstance(entries, list):
            raise ProtocolViolation(
                "tools_page", "an object with an array `tools` is expected of tools/list"
            )
        for entry in entries:
            if self._entries == MAX_TOOLS:
                logger.bind(reason="too_many_tools", limit=MAX_TOOLS).warning(
                    "device tool list cut"
                )
                return ""
            self._entries += 1
            try:
                self._keep(parse_tool(entry))
            except ProtocolViolation as violation:
                self._log_drop(violation, entry)
        return _parse_cursor(page.get("nextCursor"))

    def _keep(self, tool: DeviceTool) -> None:
        if tool.user_only:
            return
        if tool.name in self._names:
            raise ProtocolViolation("tool_duplicate", "a tool of this name is listed already")
        if self._bytes + tool.size > MAX_LISTED_BYTES:
            raise ProtocolViolation(
                "tools_too_large",
                f"with this tool the list exceeds {MAX_LISTED_BYTES} bytes as JSON",
            )
        self._names.add(tool.name)
        self._bytes += tool.size
        self.tools += (tool,)

    def _log_drop(self, violation: ProtocolViolation, entry: object) -> None:
        self._drops += 1
        if self._drops <= MAX_DROPS_LOGGED:
            name = entry.get("name") if isinstance(entry, dict) else None
            logger.bind(
                tool=name[:MAX_NAME_CHARACTERS] if isinstance(name, str) else None,
                reason=violation.reason,
                problem=str(violation),
                entry=self._entries,
                last_shown=self._drops == MAX_DROPS_LOGGED,
            ).warning("device tool dropped")


def _parse_cursor(cursor: object) -> str:
    if cursor is None:
        return ""
    if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR_CHARACTERS:
        raise ProtocolViolation(
            "tools_cursor",
            f"nextCursor is expected to be a string of at most {MAX_CURSOR_CHARACTERS} characters",
        )
    return cursor
