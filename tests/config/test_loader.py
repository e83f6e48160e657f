from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from xiaozhi_trio.config.errors import ConfigError, Problem
from xiaozhi_trio.config.loader import find_config, load_settings, parse_settings
from xiaozhi_trio.config.settings import Settings


def parse(document: str, **environment: str) -> Settings:
    return parse_settings(document, file="c.toml", environment=environment)


def problems_of(document: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(document, **environment)
    return [str(problem) for problem in raised.value.problems]


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", ["", "\n", "# only a comment\n", "\ufeff", "[server]\n"])
def test_an_empty_file_is_the_defaults(document: str) -> None:
    assert parse(document) == Settings()


def test_what_a_file_leaves_out_keeps_its_default() -> None:
    settings = parse("\ufeff[listening]\r\nend_silence_ms = 800\r\nidle_seconds = 60\r\n")
    assert settings.listening.end_silence_ms == 800
    assert settings == attrs.evolve(
        Settings(),
        listening=attrs.evolve(Settings().listening, end_silence_ms=800, idle_seconds=60.0),
    )


def test_a_whole_number_is_a_number() -> None:
    seconds = parse("[listening]\nidle_seconds = 60").listening.idle_seconds
    assert (seconds, type(seconds)) == (60.0, float)


def test_a_list_becomes_a_tuple() -> None:
    assert parse('[asr.whisper]\nlanguages = ["ja"]').asr.whisper.languages == ("ja",)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param(
            '[listening]\nend_silence_ms = "600"',
            'c.toml:2: [listening] end_silence_ms: came the text "600", expected a whole number '
            "from 100 to 5000 ms; write it without quotes: end_silence_ms = 600",
            id="number in quotes",
        ),
        pytest.param(
            "[server]\nhttp_port = true",
            "c.toml:2: [server] http_port: came true, expected a whole number "
            "from 0 to 65535; the default is http_port = 8003",
            id="truth value for a number",
        ),
        pytest.param(
            "[listening]\nend_silence_ms = 99",
            "c.toml:2: [listening] end_silence_ms: came 99, expected a whole number "
            "from 100 to 5000 ms; the default is end_silence_ms = 600",
            id="too small",
        ),
        pytest.param(
            "[listening]\nidle_seconds = 118.5",
            "c.toml:2: [listening] idle_seconds: came 118.5, expected a number "
            "from 5 to 118 s; the default is idle_seconds = 100.0",
            id="too large",
        ),
        pytest.param(
            "[listening]\nidle_seconds = nan",
            "c.toml:2: [listening] idle_seconds: came nan, expected a number "
            "from 5 to 118 s; the default is idle_seconds = 100.0",
            id="not a number",
        ),
        pytest.param(
            "[limits]\nconnections = 10.0",
            "c.toml:2: [limits] connections: came 10.0, expected a whole number "
            "from 1 to 100000; write connections = 10",
            id="fraction for a whole number",
        ),
        pytest.param(
            "[audio]\nsample_rate = 44100",
            "c.toml:2: [audio] sample_rate: came 44100, expected one of 8000, 12000, 16000, "
            "24000, 48000 Hz; the default is sample_rate = 24000",
            id="no such choice of numbers",
        ),
        pytest.param(
            '[audio]\nsample_rate = "16000"',
            'c.toml:2: [audio] sample_rate: came the text "16000", expected one of 8000, 12000, '
            "16000, 24000, 48000 Hz; write it without quotes: sample_rate = 16000",
            id="choice of numbers in quotes",
        ),
        pytest.param(
            '[logging]\nlevel = "info"',
            'c.toml:2: [logging] level: came the text "info", expected one of "TRACE", "DEBUG", '
            '"INFO", "WARNING", "ERROR"; write level = "INFO"',
            id="choice in lower case",
        ),
        pytest.param(
            '[logging]\njson = "True"',
            'c.toml:2: [logging] json: came the text "True", expected true or false; '
            "write it without quotes: json = true",
            id="truth value in quotes",
        ),
        pytest.param(
            "[asr]\nengine = 3",
            'c.toml:2: [asr] engine: came 3, expected text; write it in quotes: engine = "3"',
            id="number for text",
        ),
        pytest.param(
            "[asr]\nengine = 2026-01-02",
            "c.toml:2: [asr] engine: came 2026-01-02, expected text; "
            'the default is engine = "whisper"',
            id="date for text",
        ),
        pytest.param(
            '[authentication]\nallowed_devices = "aa:bb"',
            'c.toml:2: [authentication] allowed_devices: came the text "aa:bb", expected a list '
            'of texts; write a list: allowed_devices = ["aa:bb"]',
            id="text for a list",
        ),
        pytest.param(
            "[asr.whisper]\nlanguages = [1]",
            "c.toml:2: [asr.whisper] languages: came [1], expected a list of texts; "
            "put every item in quotes",
            id="list of something else",
        ),
        pytest.param(
            "[conversation]\nwake_words = 1",
            "c.toml:2: [conversation] wake_words: came 1, expected a list of texts; "
            'the default is wake_words = ["你好小智", "你好小志", "小爱同学", '
            '"你好小鑫", "你好小新", "小美同学"…',
            id="long default",
        ),
        pytest.param(
            f'[logging]\njson = "{"x" * 100}"',
            f'c.toml:2: [logging] json: came the text "{"x" * 59}…, expected true or false; '
            "the default is json = false",
            id="long value",
        ),
        pytest.param(
            "[llm.openai]\nextra = 1",
            "c.toml:2: [llm.openai] extra: came 1, expected a table; the default is extra = {}",
            id="number for a table",
        ),
        pytest.param(
            "[server.host]",
            'c.toml:1: [server.host]: came a table, expected text; the default is host = "0.0.0.0"',
            id="table for a setting",
        ),
        pytest.param(
            "[[server.host]]",
            "c.toml:1: [server.host]: came a list of tables, expected text; "
            'the default is host = "0.0.0.0"',
            id="list of tables for a setting",
        ),
        pytest.param(
            "server = 1",
            "c.toml:1: server: came a single value, expected a table; "
            "write the name in [ ] and keys below it",
            id="value for a section",
        ),
        pytest.param(
            "[[server]]",
            "c.toml:1: [server]: came a list of tables, expected one table; "
            "write its name in [ ] once",
            id="list for a section",
        ),
        pytest.param(
            "[listening]\n\nend_silence = 1",
            "c.toml:3: [listening] end_silence: unknown name; "
            "did you mean [listening] end_silence_ms?",
            id="misspelt key",
        ),
        pytest.param(
            "[Servr]",
            "c.toml:1: [Servr]: unknown name; did you mean [server]?",
            id="misspelt table",
        ),
        pytest.param(
            "[asr.opanai]\nmodel = 'x'",
            "c.toml:1: [asr.opanai]: unknown name; did you mean [asr.openai]?",
            id="misspelt engine",
        ),
        pytest.param(
            "websocket_port = 9000",
            "c.toml:1: websocket_port: unknown name; move it: it is [server] websocket_port",
            id="key without its table",
        ),
        pytest.param(
            "[vad.silero]\nzzz = 1",
            "c.toml:2: [vad.silero] zzz: unknown name; "
            "remove it; known here: none, this table is empty",
            id="key where there are none",
        ),
        pytest.param(
            "[state]\nzzz = 1",
            "c.toml:2: [state] zzz: unknown name; remove it; known here: directory",
            id="key like no other",
        ),
        pytest.param(
            "[asr]\nothers = 1",
            "c.toml:2: [asr] others: unknown name; remove it; known here: engine, fallback, "
            "first_answer_seconds, openai, whisper",
            id="the field for other engines",
        ),
        pytest.param(
            '[llm]\nengine = "openai"\nfallback = ["llama", "openai"]',
            'c.toml:3: [llm] fallback: came ["llama", "openai"], in which "openai" is the engine '
            'itself, expected other engines, each once; take "openai" out: the engine itself is '
            "tried again without that, and a further one of it needs a table with a name of "
            "its own",
            id="a chain that contains itself",
        ),
        pytest.param(
            '[tts]\nfallback = ["hibari", "hibari"]',
            'c.toml:2: [tts] fallback: came ["hibari", "hibari"], in which "hibari" is there '
            'twice, expected other engines, each once; take "hibari" out: the engine itself is '
            "tried again without that, and a further one of it needs a table with a name of "
            "its own",
            id="an engine twice in a chain",
        ),
        pytest.param(
            '[llm]\nfallback = "openai"',
            'c.toml:2: [llm] fallback: came the text "openai", expected a list of texts; write a '
            'list: fallback = ["openai"]',
            id="a chain that is no list",
        ),
        pytest.param(
            '[asr]\nfallback = ["openai", "other"]\nfirst_answer_seconds = 10',
            "c.toml:3: [asr] first_answer_seconds: came 10 for each engine but the last, expected "
            "less than 10, for all of them together have 20: [conversation] recognition_seconds; "
            "lower it, so that the last engine has time left, or raise the other",
            id="no time for the last of a chain",
        ),
        pytest.param(
            '[server]\nwebsocket_path = "xiaozhi"',
            'c.toml:2: [server] websocket_path: came "xiaozhi", expected a path that starts with '
            '/ and has no :, ?, # or space; for example websocket_path = "/xiaozhi/v1/"',
            id="path without its slash",
        ),
        pytest.param(
            '[server]\nhttp_url = "192.168.1.2:8003"',
            'c.toml:2: [server] http_url: came "192.168.1.2:8003", expected http://host:port or '
            'https://host:port; for example http_url = "http://192.168.1.10:8003"',
            id="address without its scheme",
        ),
        pytest.param(
            '[llm.openai]\nbase_url = "https://u:hunter2@host/v1"',
            "c.toml:2: [llm.openai] base_url: came a hidden address with a user or password in "
            "it, expected the http:// or https:// address of an API; "
            'for example base_url = "http://127.0.0.1:11434/v1"',
            id="address with a password",
        ),
        pytest.param(
            '[models]\nsources = ["hub", "moon"]',
            'c.toml:2: [models] sources: came ["hub", "moon"], expected some of '
            '["hub", "registry"], or none to fetch nothing; for example sources = ["registry"]',
            id="no such source",
        ),
        pytest.param(
            '[server]\ntls_certificate = ""\ntls_key = "/dev/null/key.pem"',
            'c.toml:3: [server] tls_key: came "/dev/null/key.pem", which is no file; '
            f"give a readable PEM file; relative names start at {Path.cwd()}",
            id="no such file",
        ),
        pytest.param(
            "[server]\nhttp_port = 8000",
            "c.toml:2: [server] http_port: came 8000, which is websocket_port too, "
            "expected two ports; give one of them another number",
            id="one port for two",
        ),
        pytest.param(
            "[listening]\nsilence_threshold = 0.5",
            "c.toml:2: [listening] silence_threshold: came 0.5, expected less than "
            "voice_threshold, which is 0.5; lower silence_threshold or raise voice_threshold",
            id="thresholds the wrong way round",
        ),
        pytest.param(
            '[tts.bilingual]\nenglish = "bilingual"',
            'c.toml:2: [tts.bilingual] english: came "bilingual", expected an engine that speaks '
            'by itself; for example english = "kokoro"',
            id="an engine made of itself",
        ),
        pytest.param(
            '[asr]\nengine = "${ENGINE}"',
            "c.toml:2: [asr] engine: came ${ENGINE}, but only secrets are read from the "
            "environment; write the value itself: engine = …",
            id="variable where none is read",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_fix(document: str, problem: str) -> None:
    assert problems_of(document) == [problem]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            "[asr]\nengine = whisper",
            "c.toml:2:10: this is not TOML: Invalid value; "
            "write texts in quotes, and true or false in lower case",
        ),
        (
            "[asr]\n[asr]",
            "c.toml:2:5: this is not TOML: Cannot declare ('asr',) twice; "
            "keep one of the two places where it is set",
        ),
        (
            "[asr\n",
            "c.toml:1:5: this is not TOML: Expected ']' at the end of a table declaration; "
            "correct the syntax there",
        ),
        (
            f"a = {'9' * 5000}",
            "c.toml: this is not usable TOML: a number is too long or values are nested too deep; "
            "shorten it",
        ),
        (
            f"a = {'[' * 3000}",
            "c.toml: this is not usable TOML: a number is too long or values are nested too deep; "
            "shorten it",
        ),
    ],
)
def test_broken_toml_is_told_with_line_and_column(document: str, problem: str) -> None:
    assert problems_of(document) == [problem]


def test_all_problems_are_told_at_once_in_file_order() -> None:
    document = "[limits]\nconnections = 0\nconections = 1\n[asr.whisper]\nqueue = 0\n[typo]\n"
    with pytest.raises(ConfigError) as raised:
        parse(document)
    found = [(problem.line, problem.key) for problem in raised.value.problems]
    assert found == [
        (2, "[limits] connections"),
        (3, "[limits] conections"),
        (5, "[asr.whisper] queue"),
        (6, "[typo]"),
    ]
    assert str(raised.value).count("\n") == 3


@pytest.mark.parametrize(
    "url",
    [
        "ws://192.168.1.10:8000/xiaozhi/v1/",
        "wss://voice.example.com/xiaozhi/v1/",
        "wss://voice.example.com/",
        "",
    ],
)
def test_a_websocket_url_firmware_can_read(url: str) -> None:
    assert parse(f'[server]\nwebsocket_url = "{url}"').server.websocket_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.10:8000/xiaozhi/v1/",
        "192.168.1.10:8000/xiaozhi/v1/",
        "ws://192.168.1.10:8000",
        "ws://192.168.1.10:8000?a=b/",
        "ws://192.168.1.10:/x",
        "ws://192.168.1.10:0/x",
        "ws://192.168.1.10:eight/x",
        "ws://192.168.1.10:99999/x",
        "ws://[::1]:8000/x",
        "ws://[::1/x",
        "ws:///x",
        "ws://host/a:b",
        "ws://host:1/a:b",
        "ws://host:1/a b",
        "ws://你的/x",
        "ws://host/#x",
    ],
)
def test_a_websocket_url_firmware_cannot_read(url: str) -> None:
    (problem,) = problems_of(f'[server]\nwebsocket_url = "{url}"')
    assert "expected ws://host:port/path" in problem


def test_an_api_may_have_an_ipv6_address() -> None:
    url = "http://[::1]:11434/v1"
    assert parse(f'[llm.openai]\nbase_url = "{url}"').llm.openai.base_url == url


@pytest.mark.parametrize(
    ("given", "lacking"), [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")]
)
def test_certificate_and_key_come_together(given: str, lacking: str, tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    (problem,) = problems_of(f"[server]\n{given} = '{pem}'")
    assert problem == (
        f"c.toml:1: [server] {lacking}: {given} is set but {lacking} is not, "
        f"expected both or none; set {lacking} too, or empty {given}"
    )
    both = parse(f"[server]\n{given} = '{pem}'\n{lacking} = '{pem}'")
    assert both.server.tls_key == str(pem)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch(mode=0o000)
    (problem,) = problems_of(f"[server]\ntls_key = '{pem}'")
    assert "which cannot be read by this user" in problem


class TestEnginesThatAreNotBuiltIn:
    def test_their_tables_are_kept_as_they_stand(self) -> None:
        settings = parse('[tts]\nengine = "mine"\n[tts.mine]\nvoice = "x"\nnested = { deep = 1 }')
        assert settings.tts.engine == "mine"
        assert settings.tts.others == {"mine": {"voice": "x", "nested": {"deep": 1}}}

    def test_an_engine_that_is_asked_for_may_have_any_name(self) -> None:
        settings = parse('[asr]\nengine = "wisper"\n[asr.wisper]\nx = 1')
        assert settings.asr.others == {"wisper": {"x": 1}}
        settings = parse('[tts.bilingual]\nchinese = "kokor"\n[tts.kokor]\nx = 1')
        assert settings.tts.others == {"kokor": {"x": 1}}

    def test_a_name_built_on_another_is_no_typo(self) -> None:
        assert parse("[asr.whisper-cpp]\n").asr.others == {"whisper-cpp": {}}

    def test_their_secrets_may_stand_in_the_environment(self) -> None:
        document = '[asr.mine]\nprompt = "${KEY}"\n[asr.mine.cloud]\naccess-token = "${KEY}"'
        others = parse(document, KEY="s3cret").asr.others
        assert others == {"mine": {"prompt": "${KEY}", "cloud": {"access-token": "s3cret"}}}

    def test_a_missing_variable_is_told_with_its_line(self) -> None:
        document = '[asr.mine]\nx = 1\napi_key = "${KEY}"\n[asr.mine.cloud]\npassword = "${OTHER}"'
        first, second = problems_of(document)
        assert first.startswith("c.toml:3: [asr.mine] api_key: came ${KEY}, but")
        assert second.startswith("c.toml:5: [asr.mine.cloud] password: came ${OTHER}, but")


class TestSecrets:
    def test_a_secret_may_stand_in_the_environment(self) -> None:
        settings = parse(
            '[llm.openai]\napi_key = "${KEY}"\nextra = { token = "${TOKEN}" }',
            KEY="sk-1",
            TOKEN="t-1",
        )
        assert settings.llm.openai.api_key == "sk-1"
        assert settings.llm.openai.extra == {"token": "t-1"}

    def test_a_secret_may_stand_in_the_file(self) -> None:
        assert parse('[authentication]\nsecret = "钥匙 $x"').authentication.secret == "钥匙 $x"

    @pytest.mark.parametrize(
        ("environment", "state"), [({}, "not set"), ({"KEY": ""}, "empty")], ids=["unset", "empty"]
    )
    def test_a_missing_variable_is_named(self, environment: dict[str, str], state: str) -> None:
        assert problems_of('[llm.openai]\napi_key = "${KEY}"', **environment) == [
            "c.toml:2: [llm.openai] api_key: came ${KEY}, but the environment variable KEY is "
            f"{state}; set KEY where the server is started, or write the secret itself"
        ]

    @pytest.mark.parametrize(
        "value",
        [
            '"hunter2 ${X}"',
            '"${hunter2"',
            '"hunter2\\n"',
            '"hunter2的key"',
            "[1, 'hunter2']",
            "2.5",
        ],
    )
    def test_the_value_is_never_shown(self, value: str) -> None:
        (problem,) = problems_of(f"[llm.openai]\napi_key = {value}")
        assert "hidden" in problem
        assert "hunter2" not in problem
        assert "2.5" not in problem

    def test_a_value_from_the_environment_is_not_shown_either(self) -> None:
        (problem,) = problems_of('[llm.openai]\napi_key = "${KEY}"', KEY="hunter2 \n")
        assert "hunter2" not in problem


class TestTheFile:
    def test_without_one_the_defaults_apply(self, working_directory: Path) -> None:
        assert load_settings(environment={}) == Settings()

    def test_the_working_directory_is_looked_at(self, working_directory: Path) -> None:
        (working_directory / "config.toml").write_text("[audio]\ncomplexity = 1")
        assert find_config(environment={}) == Path("config.toml")
        assert load_settings(environment={}).audio.complexity == 1

    def test_the_environment_comes_before_it(self, working_directory: Path) -> None:
        (working_directory / "config.toml").write_text("[audio]\ncomplexity = 1")
        (working_directory / "named.toml").write_text("[audio]\ncomplexity = 2")
        environment = {"XIAOZHI_TRIO_CONFIG": "named.toml"}
        assert load_settings(environment=environment).audio.complexity == 2

    def test_the_argument_comes_before_both(self, working_directory: Path) -> None:
        (working_directory / "given.toml").write_text("[audio]\ncomplexity = 3")
        environment = {"XIAOZHI_TRIO_CONFIG": "named.toml"}
        settings = load_settings(Path("given.toml"), environment=environment)
        assert settings.audio.complexity == 3

    def one_problem(self, path: Path) -> Problem:
        with pytest.raises(ConfigError) as raised:
            load_settings(path)
        (problem,) = raised.value.problems
        assert problem.location == str(path)
        return problem

    def test_a_named_file_must_exist(self, tmp_path: Path) -> None:
        assert self.one_problem(tmp_path / "no.toml").message == "there is no such file"

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        assert "this is a folder" in self.one_problem(tmp_path).message

    def test_it_must_be_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_bytes("# 你好".encode("gb18030"))
        problem = self.one_problem(path)
        assert (problem.message, problem.fix) == ("byte 3 is not UTF-8", "save the file as UTF-8")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_it_must_be_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.touch(mode=0o000)
        assert "Permission denied" in self.one_problem(path).message

    def test_a_file_below_a_file_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        problem = self.one_problem(tmp_path / "file" / "c.toml")
        assert problem.message == "the file cannot be read: Not a directory"


def test_trusted_proxies_are_addresses_and_networks() -> None:
    text = '[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]\n'
    assert len(parse(text).server.trusted_proxies) == 4


@pytest.mark.parametrize("network", ["", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/33"])
def test_trusted_proxies_that_are_none(network: str) -> None:
    (problem,) = problems_of(f'[server]\ntrusted_proxies = ["127.0.0.1", "{network}"]\n')
    assert f'came "{network}"' in problem
    assert "10.0.0.0/8" in problem
