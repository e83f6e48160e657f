from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from xiaozhi_trio.config.engines import (
    KINDS,
    BilingualSettings,
    KokoroSettings,
    NamedEngine,
    OpenAiLanguageModelSettings,
    built_in_engines,
)
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.protocols import (
    LanguageModel,
    SpeechRecognizer,
    SpeechSynthesizer,
    Transcript,
)
from xiaozhi_trio.engines.registry import (
    EngineKind,
    FallbackUnavailable,
    build_chain,
    build_engine,
    engine_names,
)
from xiaozhi_trio.engines.tts.openai import OpenAiSynthesizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Models:
    async def ensure(self, name: str) -> Path:
        raise AssertionError("nothing is loaded here")


MODELS = Models()


class Parrot:
    """A recogniser of another package."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    name = "parrot"

    async def load(self) -> None: ...

    async def aclose(self) -> None: ...

    async def transcribe(self, pcm: bytes) -> Transcript:
        return Transcript(f"hello {self.options.get('ear', '')}")


def choose(kind: EngineKind, engine: str, **more: Any) -> Settings:
    settings = Settings()
    table = attrs.evolve(getattr(settings, kind.value), engine=engine, **more)
    return attrs.evolve(settings, **{kind.value: table})


def refuses(_: Mapping[str, Any]) -> Any:
    raise ValueError("[asr.x] needs a member url")


def reports(_: Mapping[str, Any]) -> Any:
    raise EngineError("no licence", engine="x", category=Category.AUTHENTICATION)


def mute(_: Mapping[str, Any]) -> Any:
    return object()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a distribution with entry points that lead into this module."""
    module = ModuleType("parrot_engine")
    for part in (Parrot, refuses, reports, mute):
        setattr(module, part.__name__, part)
    module.constant = 5
    monkeypatch.setitem(sys.modules, "parrot_engine", module)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        target: str, *, kind: str = "asr", name: str = "x", package: str = "parrot"
    ) -> None:
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[xiaozhi_trio.{kind}]\n{name} = {target}\n")
        importlib.invalidate_caches()

    return install


@pytest.mark.parametrize("kind", [EngineKind.VAD, EngineKind.ASR, EngineKind.LLM, EngineKind.TTS])
def test_every_engine_the_settings_document_can_be_named(kind: EngineKind) -> None:
    default = getattr(Settings(), kind.value).engine
    assert default in engine_names(kind)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (EngineKind.ASR, SpeechRecognizer),
        (EngineKind.LLM, LanguageModel),
        (EngineKind.TTS, SpeechSynthesizer),
    ],
)
def test_the_openai_engines(kind: EngineKind, protocol: type) -> None:
    engine = build_engine(kind, choose(kind, "openai"), MODELS)
    assert isinstance(engine, protocol)
    assert engine.name == "openai"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (EngineKind.VAD, "silero"),
        (EngineKind.ASR, "whisper"),
        (EngineKind.LLM, "llama"),
        (EngineKind.TTS, "kokoro"),
        (EngineKind.TTS, "hibari"),
        (EngineKind.TTS, "bilingual"),
    ],
)
def test_the_embedded_engines(kind: EngineKind, name: str) -> None:
    pytest.importorskip("onnxruntime")
    engine = build_engine(kind, choose(kind, name), MODELS)
    assert isinstance(engine, kind.protocol)
    assert engine.name == name


def test_nothing_is_imported_that_was_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("xiaozhi_trio.engines.asr."):
            monkeypatch.delitem(sys.modules, name)
    build_engine(EngineKind.ASR, choose(EngineKind.ASR, "openai"), MODELS)
    assert "xiaozhi_trio.engines.asr.whisper" not in sys.modules


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(EngineError, match=r"'onnxruntime'.*embedded") as caught:
        build_engine(EngineKind.VAD, Settings(), MODELS)
    assert caught.value.category is Category.UNAVAILABLE
    assert caught.value.engine == "silero"


def test_a_bug_of_ours_is_no_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(name, name="xiaozhi_trio.engines.vad.silero")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        build_engine(EngineKind.VAD, Settings(), MODELS)


def bilingual(chinese: str, english: str) -> Settings:
    pair = BilingualSettings(chinese=chinese, english=english)
    return choose(EngineKind.TTS, "bilingual", bilingual=pair)


def test_bilingual_builds_what_it_names() -> None:
    with pytest.raises(EngineError, match="no engine of kind tts") as caught:
        build_engine(EngineKind.TTS, bilingual("openai", "x"), MODELS)
    assert caught.value.engine == "x"


def test_bilingual_is_one_engine_where_it_names_one_twice() -> None:
    engine = build_engine(EngineKind.TTS, bilingual("openai", "openai"), MODELS)
    assert isinstance(engine, OpenAiSynthesizer)
    assert engine.name == "bilingual"


def test_bilingual_cannot_name_itself() -> None:
    with pytest.raises(EngineError, match="names bilingual, which is bilingual itself"):
        build_engine(EngineKind.TTS, bilingual("openai", "bilingual"), MODELS)


def test_an_installed_engine(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot")
    settings = choose(EngineKind.ASR, "x", others={"x": {"colour": "green"}, "y": {}})
    engine = build_engine(EngineKind.ASR, settings, MODELS)
    assert isinstance(engine, Parrot)
    assert engine.options == {"colour": "green"}
    assert list(engine_names(EngineKind.ASR)) == ["whisper", "openai", "x"]


def test_an_installed_engine_without_a_table(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot")
    engine = build_engine(EngineKind.ASR, choose(EngineKind.ASR, "x"), MODELS)
    assert isinstance(engine, Parrot)
    assert engine.options == {}


def named(engine: str, **settings: Any) -> NamedEngine:
    return NamedEngine(engine=engine, settings=settings)


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        (kind, engine)
        for kind, section in ((EngineKind(kind), section) for section, kind in KINDS.items())
        for engine in built_in_engines(section)
    ],
)
def test_every_built_in_engine_takes_a_name(kind: EngineKind, engine: str) -> None:
    pytest.importorskip("onnxruntime")
    assert engine in engine_names(kind)
    own = getattr(getattr(Settings(), kind.value), engine)
    settings = choose(kind, "mine", named={"mine": NamedEngine(engine=engine, settings=own)})
    built = build_engine(kind, settings, MODELS)
    assert isinstance(built, kind.protocol)
    assert built.name == "mine"
    assert type(built) is type(build_engine(kind, choose(kind, engine), MODELS))


@pytest.mark.parametrize(
    ("kind", "engine", "use"),
    [
        (EngineKind.VAD, "silero", lambda engine: engine.open_stream().accept(bytes(1024))),
        (EngineKind.ASR, "whisper", lambda engine: engine.transcribe(b"")),
        (EngineKind.ASR, "openai", lambda engine: engine.transcribe(bytes(2))),
        (EngineKind.LLM, "llama", lambda engine: engine.reply([])),
        (EngineKind.LLM, "openai", lambda engine: engine.reply([]).__aenter__()),
        (EngineKind.TTS, "kokoro", lambda engine: engine.synthesize("Hi.")),
        (EngineKind.TTS, "hibari", lambda engine: engine.synthesize("Hi.")),
        (EngineKind.TTS, "openai", lambda engine: engine.synthesize("Hi.").__aenter__()),
    ],
)
async def test_a_built_in_engine_raises_under_its_name(
    kind: EngineKind, engine: str, use: Callable[[Any], Any]
) -> None:
    pytest.importorskip("onnxruntime")
    own = getattr(getattr(Settings(), kind.value), engine)
    settings = choose(kind, "mine", named={"mine": NamedEngine(engine=engine, settings=own)})
    with pytest.raises(EngineError, match=r"^mine: (is not loaded|used before load)"):
        await use(build_engine(kind, settings, MODELS))


def test_two_of_one_built_in_engine() -> None:
    cloud = NamedEngine(engine="openai", settings=OpenAiLanguageModelSettings(model="big"))
    nas = NamedEngine(engine="openai", settings=OpenAiLanguageModelSettings(model="small"))
    settings = choose(
        EngineKind.LLM, "cloud", fallback=("nas", "openai"), named={"cloud": cloud, "nas": nas}
    )
    chain = build_chain(EngineKind.LLM, settings, MODELS)
    assert [engine.name for engine in chain] == ["cloud", "nas", "openai"]
    assert [engine._settings.model for engine in chain] == ["big", "small", "gpt-4o-mini"]


async def test_two_of_one_installed_engine(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot", name="parrot")
    settings = choose(
        EngineKind.ASR,
        "left",
        fallback=("right", "parrot"),
        named={"left": named("parrot", ear=1), "right": named("parrot", ear=2)},
        others={"parrot": {"ear": 0}},
    )
    chain = build_chain(EngineKind.ASR, settings, MODELS)
    assert [engine.name for engine in chain] == ["left", "right", "parrot"]
    heard = [await engine.transcribe(b"") for engine in chain]
    assert [transcript.text for transcript in heard] == ["hello 1", "hello 2", "hello 0"]


def test_a_named_one_that_cannot_be_made_is_named(install: Callable[..., None]) -> None:
    install("parrot_engine:refuses", name="parrot")
    settings = choose(EngineKind.ASR, "left", named={"left": named("parrot")})
    with pytest.raises(EngineError, match=r"cannot make an engine of \[asr\.left\]") as caught:
        build_engine(EngineKind.ASR, settings, MODELS)
    assert caught.value.engine == "left"


def test_a_bilingual_of_named_ones() -> None:
    pytest.importorskip("onnxruntime")
    slow = NamedEngine(engine="kokoro", settings=KokoroSettings())
    one = NamedEngine(engine="bilingual", settings=BilingualSettings(chinese="slow"))
    alone = NamedEngine(
        engine="bilingual", settings=BilingualSettings(chinese="slow", english="slow")
    )
    settings = choose(
        EngineKind.TTS, "one", fallback=("alone",), named={"slow": slow, "one": one, "alone": alone}
    )
    first, second = build_chain(EngineKind.TTS, settings, MODELS)
    assert (first.name, second.name) == ("one", "alone")
    assert (first._chinese.name, first._english.name) == ("slow", "hibari")
    assert isinstance(second, type(first._chinese))


def test_a_named_bilingual_cannot_name_itself() -> None:
    duo = NamedEngine(engine="bilingual", settings=BilingualSettings(english="duo"))
    with pytest.raises(EngineError, match=r"\[tts\.duo\] names duo, which is bilingual itself"):
        build_engine(EngineKind.TTS, choose(EngineKind.TTS, "duo", named={"duo": duo}), MODELS)


def test_an_unknown_engine_names_the_named_ones() -> None:
    nas = NamedEngine(engine="openai", settings=OpenAiLanguageModelSettings())
    settings = choose(EngineKind.LLM, "nsa", named={"nas": nas}, others={"cloud": {"model": "x"}})
    with pytest.raises(EngineError, match="known are llama, openai, nas") as caught:
        build_engine(EngineKind.LLM, settings, MODELS)
    assert "engine = " not in str(caught.value)
    settings = choose(EngineKind.LLM, "cloud", others={"cloud": {"model": "x"}})
    with pytest.raises(EngineError, match=r"or say in \[llm\.cloud\] which engine"):
        build_engine(EngineKind.LLM, settings, MODELS)


def test_a_built_in_engine_cannot_be_replaced(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot", name="openai")
    engine = build_engine(EngineKind.ASR, choose(EngineKind.ASR, "openai"), MODELS)
    assert not isinstance(engine, Parrot)
    assert list(engine_names(EngineKind.ASR)) == ["whisper", "openai"]


def test_an_unknown_engine_names_the_known_ones(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot")
    with pytest.raises(EngineError, match="known are whisper, openai, x") as caught:
        build_engine(EngineKind.ASR, choose(EngineKind.ASR, "wisper"), MODELS)
    assert caught.value.engine == "wisper"
    assert caught.value.category is Category.UNAVAILABLE
    assert "xiaozhi_trio.asr" in str(caught.value)


def test_a_chain_is_the_engine_and_its_fallback(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot", name="parrot")
    settings = choose(EngineKind.ASR, "openai", fallback=("parrot",), others={"parrot": {"a": 1}})
    first, second = build_chain(EngineKind.ASR, settings, MODELS)
    assert (first.name, second.name) == ("openai", "parrot")
    assert second.options == {"a": 1}


def test_an_unknown_fallback_names_its_setting() -> None:
    settings = choose(EngineKind.LLM, "openai", fallback=("lama",))
    with pytest.raises(FallbackUnavailable, match="known are llama, openai") as caught:
        build_chain(EngineKind.LLM, settings, MODELS)
    assert caught.value.engine == "lama"
    assert "named by [llm] fallback" in str(caught.value)
    with pytest.raises(EngineError) as caught:
        build_chain(EngineKind.LLM, choose(EngineKind.LLM, "lama"), MODELS)
    assert not isinstance(caught.value, FallbackUnavailable)


def test_two_packages_with_one_name(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot", package="macaw")
    install("parrot_engine:Parrot", package="parrot")
    with pytest.raises(EngineError, match=r"macaw 1\.2, parrot 1\.2"):
        build_engine(EngineKind.ASR, choose(EngineKind.ASR, "x"), MODELS)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Parrot", "cannot be loaded: ModuleNotFoundError"),
        ("parrot_engine:NoSuch", "cannot be loaded: AttributeError"),
        ("parrot_engine:constant", "no factory but a int"),
        ("parrot_engine:refuses", r"of \[asr\.x\]: ValueError.*needs a member url"),
        ("parrot_engine:mute", "no SpeechRecognizer; it lacks aclose, load, name, transcribe"),
    ],
)
def test_a_broken_package_is_named(install: Callable[..., None], target: str, message: str) -> None:
    install(target)
    with pytest.raises(EngineError, match=message) as caught:
        build_engine(EngineKind.ASR, choose(EngineKind.ASR, "x"), MODELS)
    assert "package parrot 1.2" in str(caught.value)
    assert target in str(caught.value)


def test_an_engine_error_of_a_factory_passes(install: Callable[..., None]) -> None:
    install("parrot_engine:reports")
    with pytest.raises(EngineError, match="no licence") as caught:
        build_engine(EngineKind.ASR, choose(EngineKind.ASR, "x"), MODELS)
    assert caught.value.category is Category.AUTHENTICATION


def test_an_engine_of_another_kind(install: Callable[..., None]) -> None:
    install("parrot_engine:Parrot", kind="tts")
    with pytest.raises(EngineError, match="it lacks synthesize"):
        build_engine(EngineKind.TTS, choose(EngineKind.TTS, "x"), MODELS)


def test_vision_is_not_configured() -> None:
    @attrs.frozen
    class WithoutVision:
        pass

    with pytest.raises(EngineError, match=r"no table \[vision\]"):
        build_engine(EngineKind.VISION, WithoutVision(), MODELS)
