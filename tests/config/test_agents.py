"""Agents in the file: what they take over, which devices they have, and every mistake."""

from __future__ import annotations

import attrs
import pytest

from xiaozhi_trio.config.agents import laid_over
from xiaozhi_trio.config.disclosure import disclosed
from xiaozhi_trio.config.errors import ConfigError
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.secrets import secret_values
from xiaozhi_trio.config.settings import (
    AgentSettings,
    ConversationSettings,
    ListeningSettings,
    Settings,
)

TWO = """
[listening]
end_silence_ms = 700
barge_in_ms = 200

[conversation]
greeting_en = "Yes?"

[[agents]]
name = "grandma"
devices = ["aa:bb:cc:dd:ee:01", "AA:BB:CC:*"]
[agents.listening]
end_silence_ms = 1200
[agents.conversation]
greeting_zh = ""
[agents.playout]
lead_ms = 600

[[agents]]
name = "孩子"
devices = ["aa:bb:*"]
[agents.tools]
device = false
"""


def parse(document: str) -> Settings:
    return parse_settings(document, file="c.toml", environment={})


def problems_of(document: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(document)
    return [str(problem) for problem in raised.value.problems]


class TestWhatHoldsForADevice:
    def test_what_an_agent_leaves_out_is_as_for_all(self) -> None:
        settings = parse(TWO).for_device("aa:bb:cc:dd:ee:01")
        assert settings.listening == ListeningSettings(end_silence_ms=1200, barge_in_ms=200)
        assert settings.conversation == ConversationSettings(greeting_zh="", greeting_en="Yes?")
        assert settings.playout.lead_ms == 600
        assert settings.tools == Settings().tools
        assert settings.agents == ()

    @pytest.mark.parametrize(
        ("device_id", "end_silence_ms", "tools"),
        [
            ("aa:bb:cc:00:00:00", 1200, True),
            ("AA:BB:CC:00:00:00", 1200, True),
            ("aa:bb:00:00:00:00", 700, False),
            ("aa:00:00:00:00:00", 700, True),
            ("kitchen", 700, True),
        ],
    )
    def test_the_first_agent_that_names_it_has_it(
        self, device_id: str, end_silence_ms: int, tools: bool
    ) -> None:
        settings = parse(TWO).for_device(device_id)
        assert settings.listening.end_silence_ms == end_silence_ms
        assert settings.tools.device is tools

    def test_everything_else_is_the_servers(self) -> None:
        settings = parse(TWO)
        led = settings.for_device("aa:bb:00:00:00:00")
        assert attrs.evolve(led, tools=settings.tools, agents=settings.agents) == settings
        assert settings.for_device("kitchen") is settings

    def test_a_section_is_judged_with_what_it_takes_over(self) -> None:
        settings = parse(
            "[listening]\nvoice_threshold = 0.7\nsilence_threshold = 0.6\n"
            '[[agents]]\nname = "a"\ndevices = ["*"]\n[agents.listening]\n'
            "silence_threshold = 0.55"
        )
        listening = settings.for_device("kitchen").listening
        assert (listening.voice_threshold, listening.silence_threshold) == (0.7, 0.55)

    def test_inline_tables_do_too(self) -> None:
        settings = parse(
            'agents = [{ name = "a", devices = ["*"], listening = { barge_in_ms = 300 } }]'
        )
        assert settings.for_device("kitchen").listening.barge_in_ms == 300

    def test_without_agents_there_are_none(self) -> None:
        assert parse("agents = []") == Settings()

    def test_settings_made_in_code_need_no_file(self) -> None:
        patient = ListeningSettings(end_silence_ms=2000)
        agent = AgentSettings(name="a", devices=("b*",), listening=patient)
        assert Settings(agents=(agent,)).for_device("bed").listening is patient

    def test_they_are_shown_and_hide_nothing(self) -> None:
        settings = parse(TWO)
        first, second = disclosed(settings)["agents"]
        assert (first["name"], first["listening"]["end_silence_ms"]) == ("grandma", 1200)
        assert second["devices"] == ["aa:bb:*"]
        assert list(secret_values(settings)) == []


@attrs.frozen
class Inner:
    first: int = 1
    second: int = 2


@attrs.frozen
class Outer:
    inner: Inner = Inner()
    third: int = 3


@attrs.frozen
class Whole:
    section: Outer = Outer()


def test_sections_within_sections_are_laid_over_too() -> None:
    common = Whole(Outer(Inner(10, 20), 30))
    given = {"section": {"inner": {"second": 5}}}
    assert laid_over(common, Whole(Outer(Inner(second=5))), given) == Whole(Outer(Inner(10, 5), 30))


A = '[[agents]]\nname = "a"\ndevices = ["aa:*"]\n'
DEVICES = 'for example devices = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:*"]'


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param(
            "agents = 5",
            "c.toml:1: agents: came a single value, expected a list of tables; begin each agent "
            "with [[agents]], and its sections with [agents.listening] and such",
            id="no list",
        ),
        pytest.param(
            '[agents]\nname = "a"',
            "c.toml:1: [agents]: came one table, expected a list of tables; begin each agent "
            "with [[agents]], and its sections with [agents.listening] and such",
            id="one table",
        ),
        pytest.param(
            'agents = ["a"]',
            "c.toml:1: [[agents]]: came a single value, expected a table; write the name in [ ] "
            "and keys below it",
            id="no tables",
        ),
        pytest.param(
            '[[agent]]\nname = "a"',
            "c.toml:1: [agent]: unknown name; did you mean [[agents]]?",
            id="misspelt list",
        ),
        pytest.param(
            f"{A}nam = 1",
            "c.toml:4: [[agents]] nam: unknown name; did you mean [[agents]] name?",
            id="misspelt key",
        ),
        pytest.param(
            f"{A}[agents.listning]",
            "c.toml:4: [agents.listning]: unknown name; did you mean [agents.listening]?",
            id="misspelt section",
        ),
        pytest.param(
            f"{A}[agents.listening]\nend_silence = 900",
            "c.toml:5: [agents.listening] end_silence: unknown name; did you mean "
            "[agents.listening] end_silence_ms?",
            id="misspelt setting",
        ),
        pytest.param(
            f"{A}lead_ms = 600",
            "c.toml:4: [[agents]] lead_ms: unknown name; move it: it is [agents.playout] lead_ms "
            "or [playout] lead_ms",
            id="setting without its section",
        ),
        pytest.param(
            f"{A}[agents.audio]\nbitrate = 16000",
            "c.toml:4: [agents.audio]: unknown name; remove it; known here: conversation, "
            "devices, listening, name, playout, tools",
            id="section of the whole server",
        ),
        pytest.param(
            f"{A}[agents.listening]\nend_silence_ms = 99",
            "c.toml:5: [agents.listening] end_silence_ms: came 99, expected a whole number from "
            "100 to 5000 ms; the default is end_silence_ms = 600",
            id="too small",
        ),
        pytest.param(
            f'{A}[agents.tools]\ndevice = "true"',
            'c.toml:5: [agents.tools] device: came the text "true", expected true or false; '
            "write it without quotes: device = true",
            id="wrong type",
        ),
        pytest.param(
            f"{A}listening = 3",
            "c.toml:4: [[agents]] listening: came a single value, expected a table; write the "
            "name in [ ] and keys below it",
            id="value for a section",
        ),
        pytest.param(
            f"{A}[[agents.listening]]",
            "c.toml:4: [agents.listening]: came a list of tables, expected one table; write its "
            "name in [ ] once",
            id="list for a section",
        ),
        pytest.param(
            '[[agents]]\ndevices = ["a"]',
            "c.toml:1: [[agents]] name: came none, expected a name for each agent; "
            'for example name = "kitchen"',
            id="no name",
        ),
        pytest.param(
            '[[agents]]\nname = " a"\ndevices = ["a"]',
            "c.toml:2: [[agents]] name: came a text of 2 characters, expected at most 64, without "
            'line breaks or space around them; give it a short name, for example name = "kitchen"',
            id="name with space around it",
        ),
        pytest.param(
            '[[agents]]\nname = "a\\nb"\ndevices = ["a"]',
            "c.toml:2: [[agents]] name: came a text of 3 characters, expected at most 64, without "
            'line breaks or space around them; give it a short name, for example name = "kitchen"',
            id="name of two lines",
        ),
        pytest.param(
            f'[[agents]]\nname = "{"a" * 65}"\ndevices = ["a"]',
            "c.toml:2: [[agents]] name: came a text of 65 characters, expected at most 64, "
            "without line breaks or space around them; give it a short name, "
            'for example name = "kitchen"',
            id="long name",
        ),
        pytest.param(
            '[[agents]]\nname = "${NAME}"\ndevices = ["a"]',
            "c.toml:2: [[agents]] name: came ${NAME}, but only secrets are read from the "
            "environment; write the value itself: name = …",
            id="name out of the environment",
        ),
        pytest.param(
            '[[agents]]\nname = "a"',
            f"c.toml:1: [[agents]] devices: came none, expected the agent's devices; {DEVICES}",
            id="no devices",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = []',
            f"c.toml:3: [[agents]] devices: came none, expected the agent's devices; {DEVICES}",
            id="empty devices",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = "aa:*"',
            'c.toml:3: [[agents]] devices: came the text "aa:*", expected a list of texts; write '
            'a list: devices = ["aa:*"]',
            id="one device without its list",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = ["aa:*", ""]',
            'c.toml:3: [[agents]] devices: came "", expected device ids: letters, digits and '
            f". _ : - with * for any text; {DEVICES}",
            id="empty pattern",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = ["aa:[0-9]+"]',
            'c.toml:3: [[agents]] devices: came "aa:[0-9]+", expected device ids: letters, digits '
            f"and . _ : - with * for any text; {DEVICES}",
            id="regular expression",
        ),
        pytest.param(
            f'[[agents]]\nname = "a"\ndevices = ["*{"a" * 65}*"]',
            "c.toml:3: [[agents]] devices: came a device id of 65 characters, expected at most "
            "64, for no device has a longer one; shorten it",
            id="longer than any device id",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = ["AA-BB-CC-DD-EE-01"]',
            'c.toml:3: [[agents]] devices: came "AA-BB-CC-DD-EE-01", expected MAC addresses as '
            'the server spells them, with colons; write "aa:bb:cc:dd:ee:01"',
            id="MAC address with dashes",
        ),
        pytest.param(
            '[[agents]]\nname = "a"\ndevices = ["aabbccddee01"]',
            'c.toml:3: [[agents]] devices: came "aabbccddee01", expected MAC addresses as the '
            'server spells them, with colons; write "aa:bb:cc:dd:ee:01"',
            id="MAC address without colons",
        ),
        pytest.param(
            f'{A}[[agents]]\nname = "a"\ndevices = ["bb:*"]',
            'c.toml:5: [[agents]] name: came "a", which an earlier agent is called too, expected '
            "a name of its own; rename one of them",
            id="one name for two",
        ),
        pytest.param(
            f'{A}[[agents]]\nname = "c"\ndevices = ["cc"]\n'
            '[[agents]]\nname = "b"\ndevices = ["AA:bb:*", "CC"]',
            'c.toml:9: [[agents]] devices: came ["AA:bb:*", "CC"], which earlier agents have all: '
            '"a", "c"; expected a device that none of them has; move this agent before them, or '
            "give it other devices",
            id="no device is left",
        ),
        pytest.param(
            f"{A}[agents.listening]\nvoice_threshold = 0.3",
            "c.toml:4: [agents.listening] silence_threshold: came 0.35, expected less than "
            "voice_threshold, which is 0.3; lower silence_threshold or raise voice_threshold",
            id="at odds with what it takes over",
        ),
        pytest.param(
            f'[llm]\nfallback = ["openai"]\n{A}[agents.conversation]\nfirst_token_seconds = 3',
            "c.toml:3: [[agents]]: with what this agent has, [llm] first_answer_seconds: came 5 "
            "for each engine but the last, expected less than 3, for all of them together have 3: "
            "[conversation] first_token_seconds; lower it, so that the last engine has time left, "
            "or raise the other",
            id="at odds with the engines",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_fix(document: str, problem: str) -> None:
    assert problems_of(document) == [problem]


def test_what_is_wrong_for_all_devices_is_told_once() -> None:
    document = f"[listening]\nvoice_threshold = 0.2\n{A}[agents.listening]\nbarge_in_ms = 1\n{A}"
    first, second = problems_of(document)
    assert first.startswith("c.toml:1: [listening] silence_threshold: came 0.35")
    assert second.startswith("c.toml:7: [agents.listening] barge_in_ms: came 1,")


def test_the_lines_are_those_of_each_agent() -> None:
    document = "".join(
        f'[[agents]]\nname = "{name}"\ndevices = ["{name}"]\n[agents.playout]\nlead_ms = 1\n'
        for name in "abc"
    )
    assert [problem.split(": ")[0] for problem in problems_of(document)] == [
        "c.toml:5",
        "c.toml:10",
        "c.toml:15",
    ]


def test_an_agent_may_share_devices_as_long_as_one_is_its_own() -> None:
    document = f'{A}[[agents]]\nname = "b"\ndevices = ["aa:bb", "bb"]'
    assert parse(document).for_device("bb").agents == ()
