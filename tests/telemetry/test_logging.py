from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from loguru import logger

from xiaozhi_trio.config.settings import LoggingSettings
from xiaozhi_trio.telemetry import logging as our_logging
from xiaozhi_trio.telemetry.logging import configure_logging
from xiaozhi_trio.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE_TOKEN = "A" * 43 + ".1767225600"


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the process's logging as pytest had it."""
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    monkeypatch.setattr(our_logging, "_redactor", Redactor())
    # The one library that chooses a level for itself, where another test has imported it.
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logging.NOTSET)
    yield
    hub.setLevel(hub_level)
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show


def fail(message: str) -> None:
    raise ValueError(message)


class Log:
    """A configured log and what it wrote."""

    def __init__(self, **options: object) -> None:
        self.stream = io.StringIO()
        configure_logging(LoggingSettings(**options), stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[str]:
        """Without the time."""
        return [re.sub(r"^[\d-]{10} [\d:.]{12} ", "", line) for line in self.text.splitlines()]

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_one_line_an_event_with_the_devices_fields_first() -> None:
    log = Log()
    with logger.contextualize(session="s1", device="aa:bb"):
        logger.bind(reason="token_expired", seconds=0.123456789, turn=3).info("handshake refused")
    assert re.match(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO", log.text)
    assert log.lines == [
        "INFO    handshake refused device=aa:bb session=s1 turn=3 "
        "reason=token_expired seconds=0.123457"
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi" now', '"say \\"hi\\" now"'),
        ("line\nINFO forged", '"line\\nINFO forged"'),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202etxt", "\\u202etxt"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("back\\n", "back\\\\n"),
        ("你好", "你好"),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, "x" * 1000 + "…(+1)"),
        (None, "None"),
        (True, "True"),
        (b"\x00", "b'\\\\x00'"),
    ],
)
def test_what_peers_send_cannot_write_lines(value: object, shown: str) -> None:
    log = Log()
    logger.bind(came=value).info("message refused")
    assert log.lines == [f"INFO    message refused came={shown}"]


def test_a_message_with_line_breaks_stays_one_line() -> None:
    log = Log()
    logger.info("first\nsecond {not_a_field} <red>")
    assert log.lines == ["INFO    first\\nsecond {not_a_field} <red>"]


def test_an_exception_is_indented_below_its_line() -> None:
    log = Log()
    try:
        fail("bad\n2026-01-01 00:00:00.000 INFO    forged")
    except ValueError:
        logger.bind(device="d").exception("connection failed")
    first, *below = log.text.splitlines()
    assert first.endswith("ERROR   connection failed device=d")
    assert below[0] == "  | Traceback (most recent call last):"
    assert below[-2:] == ["  | ValueError: bad", "  | 2026-01-01 00:00:00.000 INFO    forged"]
    assert all(line.startswith("  | ") for line in below)


def test_an_endless_exception_is_cut() -> None:
    log = Log()
    logger.opt(exception=ValueError("x" * 100_000)).error("failed")
    assert len(log.text) < 21_000


def test_variables_of_an_exception_are_not_shown() -> None:
    log = Log()

    def raise_with(hidden: str) -> None:
        raise ValueError("bad", len(hidden))

    try:
        raise_with("a local value")
    except ValueError:
        logger.exception("failed")
    assert "a local value" not in log.text.replace('raise_with("a local value")', "")


class TestJson:
    def test_one_object_a_line_with_the_same_fields(self) -> None:
        log = Log(json=True)
        logger.bind(reason="busy\n", count=2, ok=True, none=None, ratio=0.5, turn=1).warning(
            "you 你"
        )
        (event,) = log.events
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", str(event.pop("ts"))
        )
        assert list(event) == ["level", "event", "turn", "reason", "count", "ok", "none", "ratio"]
        assert event == {
            "level": "WARNING",
            "event": "you 你",
            "turn": 1,
            "reason": "busy\n",
            "count": 2,
            "ok": True,
            "none": None,
            "ratio": 0.5,
        }
        assert "你" in log.text

    def test_no_character_of_a_peer_reaches_the_terminal(self) -> None:
        log = Log(json=True)
        came = '\x1b[31m \x9b \u202e \u2028 \ud800 \U000e0001 "quoted" \\'
        logger.bind(came=came).info("refused")
        assert log.text.rstrip("\n").isprintable()
        assert log.events[0]["came"] == came

    def test_values_json_has_not_are_texts(self) -> None:
        log = Log(json=True)
        logger.bind(lost=float("nan"), error=ValueError("x"), long="x" * 1001).info("odd")
        (event,) = log.events
        assert (event["lost"], event["error"], event["long"]) == ("nan", "x", "x" * 1000 + "…(+1)")

    def test_fields_do_not_overwrite_what_every_line_has(self) -> None:
        log = Log(json=True)
        logger.bind(level="mine", event="mine").info("said")
        (event,) = log.events
        assert (event["level"], event["level_"]) == ("INFO", "mine")
        assert (event["event"], event["event_"]) == ("said", "mine")

    def test_an_exception_is_a_member(self) -> None:
        log = Log(json=True)
        logger.opt(exception=ValueError("token=hunter2")).error("failed")
        assert log.events[0]["exception"] == "ValueError: token=***"


class TestSecrets:
    @pytest.fixture(params=[False, True], ids=["text", "json"])
    def log(self, request: pytest.FixtureRequest) -> Log:
        return Log(json=request.param)

    def test_a_hidden_secret_shows_nowhere(self, log: Log) -> None:
        our_logging.hide_secret('hun"ter2')
        logger.bind(value='hun"ter2', error=ValueError('hun"ter2')).info('with hun"ter2')
        logger.opt(exception=KeyError('hun"ter2')).error("failed")
        assert "ter2" not in log.text
        assert log.text.count("***") == 4

    def test_half_a_secret_is_not_left_by_cutting(self, log: Log) -> None:
        our_logging.hide_secret("hunter2hunter2")
        logger.bind(value="x" * 990 + "hunter2hunter2").info("said")
        assert "hunter" not in log.text

    def test_what_looks_like_a_secret_is_hidden(self, log: Log) -> None:
        logger.bind(query=f"token={DEVICE_TOKEN}", api_key="hunter2", came=DEVICE_TOKEN).info(
            "Authorization: Bearer hunter2"
        )
        assert "hunter2" not in log.text
        assert "AAAA" not in log.text
        assert log.text.count("***") == 4


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "shown"),
        [("TRACE", 5), ("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)],
    )
    def test_the_setting_decides_what_is_shown(self, level: str, shown: int) -> None:
        log = Log(level=level)
        for name in ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR"):
            logger.log(name, "said")
        assert len(log.lines) == shown

    def test_arguments_stand_above_the_settings(self) -> None:
        stream = io.StringIO()
        configure_logging(LoggingSettings(level="ERROR"), json=True, level="debug", stream=stream)
        logger.debug("said")
        assert json.loads(stream.getvalue())["level"] == "DEBUG"

    def test_the_last_configuration_counts(self) -> None:
        first, second = Log(), Log()
        logger.info("said")
        assert (len(first.lines), len(second.lines)) == (0, 1)


class TestStderr:
    def test_it_is_looked_up_at_each_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logging(LoggingSettings())
        sys.stderr = io.StringIO()
        logger.info("said")
        assert "said" in sys.stderr.getvalue()
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("terminal", "no_color", "coloured"),
        [(True, "", True), (True, "1", False), (False, "", False)],
    )
    def test_colour_is_for_terminals(
        self, terminal: bool, no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", no_color)
        log = Log()
        monkeypatch.setattr(log.stream, "isatty", lambda: terminal, raising=False)
        logger.info("said")
        assert ("\033[32mINFO   \033[0m said" in log.text) is coloured


class TestLibraries:
    @pytest.mark.parametrize(
        ("name", "level", "shown_as"),
        [
            ("hypercorn.error", logging.INFO, "INFO"),
            ("hypercorn.error", logging.WARNING, "WARNING"),
            ("somebody", logging.ERROR, "ERROR"),
            ("somebody", logging.CRITICAL, "CRITICAL"),
            ("somebody", logging.INFO + 5, "INFO"),
            ("somebody", logging.DEBUG, "TRACE"),
            ("httpx", logging.INFO, "DEBUG"),
            ("huggingface_hub.file_download", logging.INFO, "DEBUG"),
            ("huggingface_hub.file_download", logging.WARNING, "WARNING"),
            ("trio-websocket", logging.ERROR, "WARNING"),
            ("trio-websocket", logging.WARNING, "DEBUG"),
        ],
    )
    def test_their_lines_come_at_sensible_levels(
        self, name: str, level: int, shown_as: str
    ) -> None:
        log = Log(level="TRACE")
        logging.getLogger(name).log(level, "said %s {}", "this")
        assert log.lines == [f"{shown_as:<7} said this {{}} logger={name}"]

    def test_requests_they_print_at_debug_are_not_shown_at_debug(self) -> None:
        log = Log(level="DEBUG")
        assert not logging.getLogger("openai").isEnabledFor(logging.DEBUG)
        logging.getLogger("openai").debug("Request options: …")
        assert log.lines == []

    def test_their_exceptions_come_along(self) -> None:
        log = Log()
        try:
            fail("bad")
        except ValueError:
            logging.getLogger("somebody").exception("failed")
        assert log.lines[0] == "ERROR   failed logger=somebody"
        assert log.lines[-1] == "  | ValueError: bad"

    def test_warnings_are_logged(self) -> None:
        log = Log()
        with warnings.catch_warnings():
            # catch_warnings puts the original back on entry.
            configure_logging(LoggingSettings(), stream=log.stream)
            warnings.simplefilter("always")
            warnings.warn("old\nhabit", DeprecationWarning, stacklevel=1)
        (line,) = log.lines
        assert re.fullmatch(
            r"WARNING python warning category=DeprecationWarning "
            r"text=old\\nhabit source=\S+test_logging\.py:\d+",
            line,
        )
