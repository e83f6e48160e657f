"""What is known to go wrong in xiaozhi-esp32-server 0.9.6, and the test that it does not here.

A case that another test bears is named with it; what no other test shows is here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trio

from xiaozhi_trio.config.settings import ConversationSettings, Settings
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedSynthesizer

TESTS = Path(__file__).parent.parent

ROWS = "gateway/test_stack_table.py"
CASES = {
    # One bad frame ends the connection.
    "listen without a state": (ROWS, "listen without a state"),
    "listen detect with a text that is a number": (ROWS, "listen with a text that is none"),
    "mcp before the hello, or without features.mcp": (
        ROWS,
        "mcp before hello and without features.mcp",
    ),
    "a type that is a list": (ROWS, "type that is a list"),
    "server with content that is no object": (ROWS, "server with content that is no object"),
    "hello with audio_params that are none": (ROWS, "hello with audio_params that are none"),
    # The handshake.
    "Connection: keep-alive, Upgrade": (ROWS, "Connection of Firefox and of proxies"),
    "a header that is repeated": (ROWS, "header sent twice"),
    "the first of a repeated header counts": (
        "conformance/test_handshake.py",
        "test_032b_headers_win_the_query_fills_gaps_the_first_counts",
    ),
    "devices that need no token are forgotten": (
        "gateway/test_doorway.py",
        "test_allowed_device_needs_no_token",
    ),
    # Configuration.
    "an empty configuration file": (
        "config/test_loader.py",
        "test_an_empty_file_is_the_defaults",
    ),
    "no websocket address configured": (
        "conformance/test_ota.py",
        "test_008_websocket_is_never_null",
    ),
    # A session.
    "a late answer of the MCP server asks for the tools again": (
        ROWS,
        "late answer of the device's MCP server",
    ),
    "ids of MCP calls collide": (
        "tools/test_jsonrpc_client.py",
        "test_a_late_answer_reaches_nobody_and_its_id_is_not_used_again",
    ),
    "the bound on the time of a synthesis": (
        "conformance/test_reference_cases.py",
        "test_a_synthesis_that_hangs_is_given_up",
    ),
    "the emotion of the first piece only": (
        "conformance/test_reference_cases.py",
        "test_an_emoji_behind_the_first_piece_of_a_sentence_is_seen",
    ),
    "features.aec makes the device interrupt itself": (
        "conformance/test_listening.py",
        "test_054_realtime_without_echo_cancellation_does_not_hear_itself",
    ),
    # The end of the process.
    "the process does not exit while a model runs": (
        "engines/test_worker.py",
        "test_close_stops_what_runs_and_refuses_the_rest",
    ),
    "a stop drops every device without a word": (
        "test_server_lifecycle.py",
        "test_110_a_stopping_server_tells_speaking_devices",
    ),
}
"""By what goes wrong there. Playing `.p3` files is left out: this server plays no files."""


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_its_test(case: str) -> None:
    file, name = CASES[case]
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    names = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    rows = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant)
    }
    assert name in (rows if file == ROWS else names)


async def test_a_synthesis_that_hangs_is_given_up(autojump_clock, talk) -> None:
    settings = Settings(conversation=ConversationSettings(synthesis_seconds=5))
    t = await talk(settings=settings, tts=ScriptedSynthesizer(seconds=3600))
    await t.device.hello()
    began = trio.current_time()
    await t.device.detect("hello?")
    stop = await t.device.wait_for("tts stop")
    assert 5 <= stop.at - began < 12
    assert t.device.of_kind("alert")
    assert t.closing is None


async def test_an_emoji_behind_the_first_piece_of_a_sentence_is_seen(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["What ", "a lovely ", "day ", "😍", "! Bye."]))
    await t.device.hello()
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    (face,) = t.device.of_kind("llm")
    assert face.body["emotion"] == "loving"
