from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from xiaozhi_trio.tools.device_tool import MAX_TOOL_BYTES
from xiaozhi_trio.tools.tool_listing import (
    MAX_CURSOR_CHARACTERS,
    MAX_DROPS_LOGGED,
    MAX_LISTED_BYTES,
    MAX_TOOLS,
    ToolListing,
)
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    lines: list[tuple[str, dict[str, Any]]] = []

    def keep(message: Any) -> None:
        lines.append((message.record["message"], dict(message.record["extra"])))

    handler = logger.add(keep, level="DEBUG", format="{message}")
    yield lines
    logger.remove(handler)


def names(listing: ToolListing) -> list[str]:
    return [tool.name for tool in listing.tools]


@pytest.mark.parametrize("end", [{}, {"nextCursor": ""}, {"nextCursor": None}])
def test_pages_add_up_until_there_is_no_cursor(end: dict[str, object]) -> None:
    listing = ToolListing()
    assert listing.add({"tools": [{"name": "a"}], "nextCursor": "b\t二"}) == "b\t二"
    assert names(listing) == ["a"]
    assert listing.add({"tools": [{"name": "b"}], **end}) == ""
    assert names(listing) == ["a", "b"]


@pytest.mark.parametrize("page", [None, [], "tools", {}, {"tools": None}, {"tools": {}}])
def test_what_is_not_a_page(page: object) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        ToolListing().add(page)
    assert raised.value.reason == "tools_page"


@pytest.mark.parametrize("cursor", [5, True, {}, "x" * (MAX_CURSOR_CHARACTERS + 1)])
def test_the_tools_of_a_page_with_a_bad_cursor_are_kept(cursor: object) -> None:
    listing = ToolListing()
    with pytest.raises(ProtocolViolation) as raised:
        listing.add({"tools": [{"name": "a"}], "nextCursor": cursor})
    assert raised.value.reason == "tools_cursor"
    assert names(listing) == ["a"]


def test_malformed_and_repeated_tools_are_left_out_with_a_line_each(
    log: list[tuple[str, dict[str, Any]]],
) -> None:
    listing = ToolListing()
    first = {"name": "a", "description": "first"}
    listing.add({"tools": [first, {"name": "x", "inputSchema": 5}, 7, {"name": "a"}]})
    assert [tool.description for tool in listing.tools] == ["first"]
    assert [
        (message, facts["reason"], facts["tool"], facts["entry"]) for message, facts in log
    ] == [
        ("device tool dropped", "tool_schema", "x", 2),
        ("device tool dropped", "tool_not_object", None, 3),
        ("device tool dropped", "tool_duplicate", "a", 4),
    ]


def test_tools_for_a_person_only_are_left_out(log: list[tuple[str, dict[str, Any]]]) -> None:
    listing = ToolListing()
    listing.add({"tools": [{"name": "self.reboot", "annotations": {"audience": ["user"]}}]})
    assert listing.tools == ()
    assert log == []


def test_the_log_of_drops_is_bounded(log: list[tuple[str, dict[str, Any]]]) -> None:
    ToolListing().add({"tools": [1] * MAX_TOOLS})
    assert len(log) == MAX_DROPS_LOGGED
    assert [facts["last_shown"] for _, facts in log] == [False] * (MAX_DROPS_LOGGED - 1) + [True]


def test_overlong_names_are_cut_in_the_log(log: list[tuple[str, dict[str, Any]]]) -> None:
    ToolListing().add({"tools": [{"name": "x" * 100_000}]})
    assert len(log[0][1]["tool"]) < 200


def test_a_list_without_end_is_cut(log: list[tuple[str, dict[str, Any]]]) -> None:
    listing = ToolListing()
    page = {"tools": [{"name": f"t{index}"} for index in range(MAX_TOOLS + 1)]}
    assert listing.add({**page, "nextCursor": "more"}) == ""
    assert len(listing.tools) == MAX_TOOLS
    assert log == [("device tool list cut", {"reason": "too_many_tools", "limit": MAX_TOOLS})]


def test_useless_entries_count_too() -> None:
    listing = ToolListing()
    for _ in range(MAX_TOOLS // 16):
        assert listing.add({"tools": [None] * 16, "nextCursor": "more"}) == "more"
    assert listing.add({"tools": [{"name": "good"}], "nextCursor": "more"}) == ""
    assert listing.tools == ()


def test_all_tools_together_are_bounded(log: list[tuple[str, dict[str, Any]]]) -> None:
    listing = ToolListing()
    large = "x" * (MAX_TOOL_BYTES - 100)
    listing.add({"tools": [{"name": f"t{index}", "description": large} for index in range(20)]})
    assert sum(tool.size for tool in listing.tools) <= MAX_LISTED_BYTES
    assert len(listing.tools) == 16
    assert log[0][1]["reason"] == "tools_too_large"
