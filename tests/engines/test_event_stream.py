from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.engines.event_stream import (
    LONGEST_EVENT_BYTES,
    EventStreamError,
    EventStreamParser,
)


def parse(*chunks: bytes) -> list[str]:
    parser = EventStreamParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\r\n\r\ndata:  b\r\n\r\n", ["a", " b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": keep-alive\n\n\n\nevent: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: a", ["a"]),
        (b"data: a\n", ["a"]),
        (b"data\n\n", [""]),
        (b"event: end\n\n", []),
        (b"data: \xff\xe4\xbd\xa0\n\n", ["\ufffd你"]),
        (b"<html>\n<body>\n\n</html>", []),
    ],
)
def test_streams(stream: bytes, events: list[str]) -> None:
    assert parse(stream) == events


@given(st.data())
def test_it_does_not_matter_where_the_stream_is_cut(data: st.DataObject) -> None:
    stream = "data: 你\r\n\r\n: x\ndata: a\rdata: b\r\r\ndata: c\n\ndata: d".encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    chunks = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    assert parse(*chunks) == ["你", "a\nb", "c", "d"]


def test_a_byte_at_a_time() -> None:
    stream = b"data: a\r\n\r\ndata: b\r\n\r\n"
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == ["a", "b"]


def test_a_line_end_cut_in_two_is_one() -> None:
    assert parse(b"data: a\r", b"", b"\ndata: b\r\n\r\n") == ["a\nb"]


def test_an_event_is_given_as_soon_as_its_empty_line_begins() -> None:
    assert EventStreamParser().feed(b"data: a\r\n\r") == ["a"]


@pytest.mark.parametrize("chunk", [b"x" * 4096, b"data: x\n" * 512])
def test_an_endless_event_is_refused(chunk: bytes) -> None:
    with pytest.raises(EventStreamError, match=str(LONGEST_EVENT_BYTES)):
        parse(*[chunk] * (2 * LONGEST_EVENT_BYTES // len(chunk)))


def test_keep_alive_comments_may_go_on() -> None:
    parser = EventStreamParser()
    for _ in range(LONGEST_EVENT_BYTES // 1024 + 2):
        assert parser.feed(b":" + b" " * 1022 + b"\n") == []
    assert parser.feed(b"data: a\n\n") == ["a"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 20),
)
def test_what_is_sent_as_events_comes_back(texts: list[str], line_end: str, step: int) -> None:
    stream = "".join(f"data: {text}{line_end}{line_end}" for text in texts).encode()
    chunks = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert parse(*chunks) == texts


@given(
    st.binary()
    | st.lists(st.sampled_from([b"data", b":", b" ", b"\r", b"\n", b"x"])).map(b"".join),
    st.integers(1, 8),
)
def test_any_bytes_are_the_same_events_however_they_are_cut(stream: bytes, step: int) -> None:
    assert parse(*(stream[at : at + step] for at in range(0, len(stream), step))) == parse(stream)
