"""Scenario files: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest

from xiaozhi_trio.testing import scenario as kinds
from xiaozhi_trio.testing.scenario_engines import EnginesScript
from xiaozhi_trio.testing.scenario_file import ScenarioFileError, parse_scenario, read_scenario


def problems_of(document: str) -> list[str]:
    with pytest.raises(ScenarioFileError) as caught:
        parse_scenario(document, file="a.toml")
    assert all(line.startswith("a.toml: ") for line in str(caught.value).splitlines())
    return list(caught.value.problems)


def test_a_whole_file() -> None:
    scenario = parse_scenario(
        """
        name = "all of it"
        breaks = ["gap"]
        [device]
        mode = "realtime"
        echo = 1
        [device.uplink]
        dtx = "gaps"
        [server.listening]
        end_silence_ms = 200
        [engines.llm]
        answers = [{ to = "x", say = "y", hangs_after = 3 }]
        [engines.tts_fallback]
        [[steps]]
        say = ["one", 300, "two"]
        [[steps.expect]]
        event = "stt"
        within_ms = 100
        [[steps]]
        send = { type = "abort" }
        expect = [{ absent = "audio" }, { asked = { llm = 1 } }]
        [[expect]]
        order = ["stt", "tts start"]
        """,
        file="a.toml",
    )
    assert scenario.device.mode == "realtime"
    assert scenario.device.echo == 1.0
    assert scenario.device.uplink.dtx == "gaps"
    assert scenario.server == {"listening": {"end_silence_ms": 200}}
    assert scenario.engines.llm.answers[0].hangs_after == 3
    assert scenario.engines.tts_fallback is not None
    assert scenario.engines.llm_fallback is None
    assert scenario.engines.goes_wrong
    said, sent = scenario.steps
    assert isinstance(said, kinds.Say)
    assert said.say == ("one", 300, "two")
    assert said.expect == (kinds.ExpectEvent(event="stt", within_ms=100),)
    assert isinstance(sent, kinds.Send)
    assert sent.expect == (kinds.ExpectAbsent(absent="audio"), kinds.ExpectAsked(asked={"llm": 1}))
    assert scenario.expect == (kinds.ExpectOrder(order=("stt", "tts start")),)
    assert scenario.breaks == ("gap",)


def test_a_network_that_stalls_and_a_server_that_stops() -> None:
    scenario = parse_scenario(
        'name = "a"\nsteps = [{ network = "stalls" }, { server = "stops" }]\n'
        "[engines]\nstock = true",
        file="a.toml",
    )
    assert scenario.steps == (kinds.Network(network="stalls"), kinds.Stop(server="stops"))
    assert scenario.stops_server
    assert scenario.engines.goes_wrong


def test_engines_that_only_answer_do_nothing_wrong() -> None:
    scenario = parse_scenario(
        'name = "a"\nsteps = []\n[[engines.llm.answers]]\nsay = "hello"', file="a.toml"
    )
    assert not scenario.engines.goes_wrong
    assert not EnginesScript().goes_wrong


def test_tools_and_who_calls_them() -> None:
    scenario = parse_scenario(
        """
        name = "a"
        steps = []
        [device]
        tools = [{ name = "self.lamp", error = "no bulb", delay_ms = 20 }]
        [[engines.llm.answers]]
        say = ""
        calls = [{ tool = "self.lamp", arguments = { on = true } }, { tool = "end_conversation" }]
        then = "Done."
        """,
        file="a.toml",
    )
    (tool,) = scenario.device.tools
    assert (tool.name, tool.error, tool.delay_ms, tool.answers) == (
        "self.lamp",
        "no bulb",
        20,
        True,
    )
    (answer,) = scenario.engines.llm.answers
    assert [call.tool for call in answer.calls] == ["self.lamp", "end_conversation"]
    assert answer.calls[0].arguments == {"on": True}
    assert scenario.engines.calls_tools
    assert not scenario.engines.goes_wrong
    assert not EnginesScript().calls_tools


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("name =", "this is not TOML"),
        ("steps = []", "name: is missing"),
        ('name = "a"', "steps: is missing"),
        ("name = 1\nsteps = []", "name: came 1, expected a text in quotes"),
        ('name = "a"\nsteps = [1]', "steps[1]: came 1, expected a table"),
        ('name = "a"\nsteps = [{}]', "steps[1]: a step has exactly one of say, sound"),
        (
            'name = "a"\nsteps = [{ press = "button" }, { press = "bell" }]',
            "steps[2].press: came 'bell', expected one of 'button', 'talk'",
        ),
        (
            'name = "a"\nsteps = [{ press = "button", say = "hi" }]',
            "came say and press",
        ),
        (
            'name = "a"\nsteps = [{ wait_ms = "long" }]',
            "steps[1].wait_ms: came 'long', expected a whole number",
        ),
        (
            'name = "a"\nsteps = [{ wait_ms = true }]',
            "steps[1].wait_ms: came True, expected a whole number",
        ),
        (
            'name = "a"\nsteps = [{ say = 5.5 }]',
            "steps[1].say: came 5.5, expected a text or a list of texts and pauses (ms)",
        ),
        (
            'name = "a"\nsteps = [{ send_hex = "xyz" }]',
            "steps[1].send_hex: came 'xyz', expected pairs of hexadecimal digits",
        ),
        (
            'name = "a"\nsteps = [{ send = "abort" }]',
            "steps[1].send: came 'abort', expected a table",
        ),
        (
            'name = "a"\nsteps = [{ press = "button", expect = [{ event = "stt", in = 3 }] }]',
            "steps[1].expect[1].in: unknown key; known here: event, text, within_ms",
        ),
        (
            'name = "a"\nsteps = []\nexpect = [{}]',
            "expect[1]: an expectation has exactly one of event, absent",
        ),
        (
            'name = "a"\nsteps = []\n[engines.llm]\nerror = "sad"',
            "engines.llm.error: came 'sad', expected one of authentication",
        ),
        ('name = "a"\nsteps = []\ndevice = 3', "device: came 3, expected a table"),
        (
            'name = "a"\nsteps = []\n[device]\necho = "loud"',
            "device.echo: came 'loud', expected a number",
        ),
        (
            'name = "a"\nsteps = []\n[device]\ntools = [{ result = "x" }]',
            "device.tools[1].name: is missing",
        ),
        (
            'name = "a"\nsteps = []\n[[engines.llm.answers]]\nsay = ""\n'
            'calls = [{ tool = "x", arguments = 3 }]',
            "engines.llm.answers[1].calls[1].arguments: came 3, expected a table",
        ),
        ('name = "a"\nsteps = []\n[engine]', "engine: unknown key; known here: name"),
        ('name = "a"\nsteps = []\nbreaks = ["luck"]', "breaks[1]: came 'luck'"),
        (
            'name = "a"\nsteps = [{ connect = false }]',
            "steps[1].connect: came False, expected one of True",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(
    document: str, problem: str
) -> None:
    assert problem in "\n".join(problems_of(document))


def test_all_mistakes_are_told_at_once() -> None:
    problems = problems_of('name = 1\nsteps = [{ wait_ms = "a" }, { press = 2 }]')
    assert len(problems) == 3


def test_a_file_that_cannot_be_read_is_told(tmp_path) -> None:
    with pytest.raises(ScenarioFileError, match="cannot be read"):
        read_scenario(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ScenarioFileError, match="byte 9 is not UTF-8"):
        read_scenario(tmp_path / "latin.toml")
