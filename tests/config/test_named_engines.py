from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

import pytest

from xiaozhi_trio.config.disclosure import disclosed
from xiaozhi_trio.config.engines import (
    KINDS,
    BilingualSettings,
    LlamaSettings,
    NamedEngine,
    OpenAiLanguageModelSettings,
    OpenAiRecognizerSettings,
    SileroSettings,
    SynthesizerSettings,
    WhisperSettings,
    chain_of,
    engine_called,
)
from xiaozhi_trio.config.errors import ConfigError
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.named_engines import LONGEST_NAME
from xiaozhi_trio.config.secrets import secret_values
from xiaozhi_trio.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOUD_AND_NAS = """
[llm]
engine = "cloud"
fallback = ["nas", "llama"]
first_answer_seconds = 2

[llm.cloud]
engine = "openai"
base_url = "https://cloud.example/v1"
api_key = "${CLOUD_KEY}"
model = "big"

[llm.nas]
engine = "openai"
base_url = "http://nas:11434/v1"
model = "qwen3"
"""


def parse(document: str, **environment: str) -> Settings:
    return parse_settings(document, file="c.toml", environment=environment)


def problems_of(document: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(document, **environment)
    return [str(problem) for problem in raised.value.problems]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a distribution that brings an engine of a kind; nothing can be loaded of it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(kind: str, name: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[xiaozhi_trio.{kind}]\n{name} = nowhere:X\n")
        importlib.invalidate_caches()

    return install


def test_two_of_one_engine() -> None:
    llm = parse(CLOUD_AND_NAS, CLOUD_KEY="s3cret").llm
    assert chain_of(llm) == ("cloud", "nas", "llama")
    assert llm.named == {
        "cloud": NamedEngine(
            engine="openai",
            settings=OpenAiLanguageModelSettings(
                base_url="https://cloud.example/v1", api_key="s3cret", model="big"
            ),
        ),
        "nas": NamedEngine(
            engine="openai",
            settings=OpenAiLanguageModelSettings(base_url="http://nas:11434/v1", model="qwen3"),
        ),
    }
    assert llm.openai == OpenAiLanguageModelSettings()
    assert llm.others == {}


def test_every_kind_has_them() -> None:
    settings = parse(
        '[vad.ear]\nengine = "silero"\n[asr.cloud]\nengine = "openai"\n'
        '[asr.many]\nengine = "whisper"\nworkers = 4\n[tts.duo]\nengine = "bilingual"\n'
        'chinese = "openai"'
    )
    assert settings.vad.named["ear"].settings == SileroSettings()
    assert settings.asr.named["cloud"].settings == OpenAiRecognizerSettings()
    assert settings.asr.named["many"].settings == WhisperSettings(workers=4)
    assert settings.tts.named["duo"].settings == BilingualSettings(chinese="openai")


def test_what_a_name_stands_for() -> None:
    document = (
        '[llm.big]\nengine = "llama"\nthreads = 2\n[llm.llama]\nthreads = 1\n[llm.mine]\nx = 1'
    )
    llm = parse(document).llm
    assert engine_called("big", llm) == NamedEngine(
        engine="llama", settings=LlamaSettings(threads=2)
    )
    assert engine_called("llama", llm) == NamedEngine(
        engine="llama", settings=LlamaSettings(threads=1)
    )
    assert engine_called("mine", llm) == NamedEngine(engine="mine", settings={"x": 1})
    assert engine_called("absent", llm) == NamedEngine(engine="absent", settings={})


def test_a_name_like_an_engine_s_is_no_typo_where_the_table_says_what_it_is() -> None:
    assert parse('[llm.lama]\nengine = "llama"').llm.named["lama"].engine == "llama"


@pytest.mark.parametrize("name", ["named", "others"])
def test_no_name_is_taken(name: str) -> None:
    assert list(parse(f'[llm.{name}]\nengine = "openai"').llm.named) == [name]


def test_an_installed_engine_s_table_is_kept_as_it_stands(
    install: Callable[[str, str], None],
) -> None:
    install("asr", "parrot")
    document = '[asr.loud]\nengine = "parrot"\nvolume = 11\n[asr.loud.account]\ntoken = "${T}"'
    asr = parse(document, T="s3cret").asr
    assert asr.named == {
        "loud": NamedEngine(
            engine="parrot", settings={"volume": 11, "account": {"token": "s3cret"}}
        )
    }
    [problem] = problems_of(document)
    assert problem.startswith("c.toml:5: [asr.loud.account] token: came ${T}, but")


def test_the_longest_name() -> None:
    name = "n" * LONGEST_NAME
    assert list(parse(f'[llm.{name}]\nengine = "openai"').llm.named) == [name]


@pytest.mark.parametrize("name", ["n" * (LONGEST_NAME + 1), "_n", "-n", '"a b"', '"ü"', '"a.b"'])
def test_a_name_that_cannot_be_a_label(name: str) -> None:
    [problem] = problems_of(f'\n[llm.{name}]\nengine = "openai"')
    assert problem == (
        f"c.toml:2: [llm.{name.strip(chr(34))}]: came a name that cannot be an engine's, expected "
        "at most 32 ASCII letters, digits, _ and -, the first no _ or -; "
        "rename the table, for example [llm.cloud]"
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param(
            '[llm.cloud]\nengine = "opnai"',
            'c.toml:2: [llm.cloud] engine: came "opnai", expected an engine: llama, openai; '
            'did you mean engine = "openai"?',
            id="a misspelt engine",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "whisper"',
            'c.toml:2: [llm.cloud] engine: came "whisper", expected an engine: llama, openai; '
            "name one of these; others come with packages that have an entry point in the group "
            "xiaozhi_trio.llm",
            id="an engine of another kind",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "cloud"',
            'c.toml:2: [llm.cloud] engine: came "cloud", which is this table itself, expected an '
            "engine: llama, openai; name one of these",
            id="itself",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "nas"\n[llm.nas]\nengine = "openai"',
            'c.toml:2: [llm.cloud] engine: came "nas", which is another named engine, expected an '
            "engine: llama, openai; write what [llm.nas] has as its engine",
            id="another named one",
        ),
        pytest.param(
            "[llm.cloud]\nengine = 3",
            "c.toml:2: [llm.cloud] engine: came a value that is no text, expected the name of an "
            'engine; write it in quotes, for example engine = "openai"',
            id="no text",
        ),
        pytest.param(
            '[llm.openai]\nengine = "openai"',
            "c.toml:2: [llm.openai] engine: unknown name, for [llm.openai] is the built-in "
            "engine's own table; give a further one a name of its own, for example "
            "[llm.my-openai]",
            id="a built-in engine's own table",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "openai"\nbse_url = "x"',
            "c.toml:3: [llm.cloud] bse_url: unknown name; did you mean [llm.cloud] base_url?",
            id="a misspelt key",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "openai"\nx = { y = 1 }',
            "c.toml:3: [llm.cloud.x]: unknown name; remove it; known here: api_key, base_url, "
            "extra, max_tokens, model, temperature, timeout_seconds",
            id="a table too many",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "openai"\ntemperature = 9',
            "c.toml:3: [llm.cloud] temperature: came 9, expected a number from 0 to 2; "
            "the default is temperature = 0.7",
            id="out of bounds",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "openai"\nbase_url = "ftp://x"',
            'c.toml:3: [llm.cloud] base_url: came "ftp://x", expected the http:// or https:// '
            'address of an API; for example base_url = "http://127.0.0.1:11434/v1"',
            id="a rule of the engine",
        ),
        pytest.param(
            '[llm.cloud]\nengine = "openai"\napi_key = "${CLOUD_KEY}"',
            "c.toml:3: [llm.cloud] api_key: came ${CLOUD_KEY}, but the environment variable "
            "CLOUD_KEY is not set; set CLOUD_KEY where the server is started, or write the secret "
            "itself",
            id="a secret that is not there",
        ),
        pytest.param(
            '[tts.duo]\nengine = "bilingual"\nenglish = "bilingual"',
            'c.toml:3: [tts.duo] english: came "bilingual", expected an engine that speaks by '
            'itself; for example english = "kokoro"',
            id="bilingual of bilingual",
        ),
        pytest.param(
            '[tts.duo]\nengine = "bilingual"\nchinese = "duo"',
            'c.toml:3: [tts.duo] chinese: came "duo", which is bilingual, expected an engine that '
            'speaks by itself; for example chinese = "kokoro"',
            id="bilingual of itself",
        ),
        pytest.param(
            '[tts.bilingual]\nenglish = "duo"\n[tts.duo]\nengine = "bilingual"',
            'c.toml:2: [tts.bilingual] english: came "duo", which is bilingual, expected an engine '
            'that speaks by itself; for example english = "kokoro"',
            id="bilingual of a named one",
        ),
        pytest.param(
            "[vad]\nnamed = 1",
            "c.toml:2: [vad] named: unknown name; remove it; known here: engine, silero",
            id="the field of named engines",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_fix(document: str, problem: str) -> None:
    assert problems_of(document) == [problem]


def test_all_mistakes_are_told_at_once() -> None:
    lines = [
        problem.partition(": ")[0]
        for problem in problems_of(
            '[llm.a]\nengine = "x"\n[llm.b]\nengine = "openai"\ntemperature = 9\nmax_tokens = 0\n'
            '[asr.c]\nengine = "whisper"\nworkers = 0\n[asr]\nfallback = 1'
        )
    ]
    assert lines == ["c.toml:2", "c.toml:5", "c.toml:6", "c.toml:9", "c.toml:11"]


def test_an_installed_engine_s_own_table_says_no_engine(
    install: Callable[[str, str], None],
) -> None:
    install("llm", "echo")
    [problem] = problems_of('[llm.echo]\nengine = "echo"')
    assert problem.endswith(
        "expected an engine: llama, openai, echo; "
        "leave engine out where the table has the settings of the installed engine"
    )


def test_their_secrets_are_found_and_not_shown(install: Callable[[str, str], None]) -> None:
    install("llm", "echo")
    settings = parse(
        CLOUD_AND_NAS
        + '[llm.token]\nengine = "openai"\nextra = { password = "hidden-extra" }\n'
        + '[llm.far]\nengine = "echo"\napi_key = "hidden-echo"\nplain = "shown"\n',
        CLOUD_KEY="hidden-key",
    )
    assert sorted(secret_values(settings)) == ["hidden-echo", "hidden-extra", "hidden-key"]
    shown = disclosed(settings)
    assert "hidden" not in json.dumps(shown)
    named = shown["llm"]["named"]
    assert named["cloud"]["settings"]["api_key"] == "***"
    assert named["nas"]["settings"]["api_key"] == ""
    assert named["token"]["settings"]["extra"] == {"password": "***"}
    assert named["far"] == {"engine": "echo", "settings": {"api_key": "***", "plain": "shown"}}
    assert "hidden" not in repr(settings)


def test_a_secret_is_in_no_error() -> None:
    problems = problems_of(
        '[llm.cloud]\nengine = "openai"\napi_key = "hid den"\nbase_url = "https://u:hidden@h/v1"'
    )
    assert len(problems) == 2
    assert "hid den" not in str(problems)
    assert "u:hidden" not in str(problems)


def test_the_kinds_are_the_settings_tables() -> None:
    settings = Settings()
    assert {kind: type(getattr(settings, kind)) for kind in KINDS.values()} == {
        kind: section for section, kind in KINDS.items()
    }
    assert KINDS[SynthesizerSettings] == "tts"
