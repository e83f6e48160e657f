from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.config.engines import KokoroSettings, LlamaSettings, WhisperSettings
from xiaozhi_trio.engines.catalogue import (
    Catalogue,
    CatalogueError,
    HubSource,
    NpmSource,
    PackageSource,
    PyPISource,
    ReleaseSource,
    UnknownModelError,
    VendoredSource,
)
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

HASH = "0123456789abcdef" * 4

MODEL = f"""
[models.tiny]
description = "A tiny model"
licence = "MIT"
upstream = "someone/tiny"

[[models.tiny.files]]
name = "tiny.bin"
size = 5
sha256 = "{HASH}"
sources = [
    {{ kind = "vendored", resource = "voices/tiny.bin" }},
    {{ kind = "hub", repository = "someone/tiny", path = "onnx/tiny.bin" }},
    {{ kind = "release", url = "https://example.org/tiny.bin" }},
    {{ kind = "pypi", parts = [
        {{ package = "tiny-1", version = "1.0", member = "tiny/1", size = 2, sha256 = "{HASH}" }},
        {{ package = "tiny-2", version = "1.0", member = "tiny/2", size = 3 }},
    ] }},
    {{ kind = "npm", parts = [
        {{ package = "@someone/tiny", version = "1.0.0", member = "package/tiny", size = 5 }},
    ] }},
]
"""


def test_every_kind_of_source_is_read_in_order() -> None:
    (file,) = Catalogue.parse(MODEL).model("tiny").files

    assert [type(source) for source in file.sources] == [
        VendoredSource,
        HubSource,
        ReleaseSource,
        PyPISource,
        NpmSource,
    ]
    assert [source.kind for source in file.sources] == ["vendored", "hub", "release", "pypi", "npm"]
    hub, wheels = file.sources[1], file.sources[3]
    assert isinstance(hub, HubSource)
    assert hub.revision == "main"
    assert isinstance(wheels, PyPISource)
    assert [(part.member, part.sha256) for part in wheels.parts] == [
        ("tiny/1", HASH),
        ("tiny/2", None),
    ]


def test_a_model_knows_its_size_and_name() -> None:
    model = Catalogue.parse(MODEL).model("tiny")

    assert (model.name, model.total_bytes) == ("tiny", 5)


def test_an_unknown_model_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"'huge'.*known models: tiny") as caught:
        Catalogue.parse(MODEL).model("huge")

    assert isinstance(caught.value, EngineError)
    assert caught.value.category is EngineErrorCategory.BAD_REQUEST


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models = ", "not TOML"),
        ("models = 3", "wrong"),
        ("[models]\ntiny = 3", "wrong"),
        (MODEL.replace("size = 5\n", ""), r"size.*files\[0\]"),
        (MODEL.replace("size = 5\n", "size = 0\n"), r"size.*files\[0\]"),
        (MODEL.replace('licence = "MIT"\n', ""), "licence"),
        (MODEL + "\ncolour = 1", "colour"),
        (
            MODEL.replace('kind = "hub"', 'kind = "ftp"'),
            r"ftp is missing or unknown @.*sources\[1\]",
        ),
        (MODEL.replace("size = 3", "size = 4"), "6 bytes together"),
        (MODEL.replace(HASH, HASH.upper()), "sha256"),
        (MODEL.replace('"tiny.bin"', '"../tiny.bin"'), "name"),
        (MODEL.replace('"tiny.bin"', '".verified.json"'), "name"),
        (MODEL.replace("models.tiny", 'models."../tiny"'), "name"),
        (MODEL.replace('"tiny-1"', '"--index-url"'), "package"),
        (MODEL.replace('"tiny-1"', '"../tiny"'), "package"),
        (MODEL.replace('version = "1.0"', 'version = "--pre"', 1), "version"),
        (MODEL.replace("https://", "http://"), "url"),
        (MODEL.replace("voices/tiny.bin", "../../etc/passwd"), "resource"),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(CatalogueError, match=complaint):
        Catalogue.parse(text)


ODD_VALUES = ["0", "-1", "1.5", "nan", "true", '""', '"x"', "[]", "[[]]", "{}", "1979-05-27"]
PLACES = [match.span() for match in re.finditer(r'(?<== )("[^"]*"|\d+)', MODEL)]


@given(st.sampled_from(PLACES), st.sampled_from(ODD_VALUES))
def test_an_odd_value_is_taken_or_refused(place: tuple[int, int], value: str) -> None:
    start, end = place
    text = MODEL[:start] + value + MODEL[end:]
    with suppress(CatalogueError):
        assert set(Catalogue.parse(text).models) == {"tiny"}


@given(
    st.text()
    | st.tuples(st.integers(0, len(MODEL)), st.text(max_size=4)).map(
        lambda change: MODEL[: change[0]] + change[1] + MODEL[change[0] + len(change[1]) :]
    )
)
def test_any_text_is_taken_or_refused(text: str) -> None:
    with suppress(CatalogueError):
        assert Catalogue.parse(text).models is not None


def test_the_packaged_catalogue_has_the_models_the_default_settings_name() -> None:
    models = Catalogue.load().models

    assert {
        "silero-vad",
        "kokoro",
        "kokoro-voices-extra",
        "qwen2.5-1.5b",
        WhisperSettings().model,
        LlamaSettings().model,
    } <= models.keys()
    voices = {file.name for file in models["kokoro"].files}
    assert {f"{KokoroSettings().voice_zh}.bin", f"{KokoroSettings().voice_en}.bin"} <= voices


def test_every_packaged_file_can_be_had_without_the_hub() -> None:
    for model in Catalogue.load().models.values():
        for file in model.files:
            kinds = {source.kind for source in file.sources}
            assert kinds & {"vendored", "pypi", "npm"}, f"{model.name}/{file.name}"


def test_the_default_models_need_no_npm() -> None:
    models = Catalogue.load().models
    for name in ("silero-vad", "whisper-base", "qwen2.5-0.5b", "qwen2.5-1.5b", "kokoro"):
        for file in models[name].files:
            kinds = {source.kind for source in file.sources}
            assert kinds & {"vendored", "pypi"}, f"{name}/{file.name}"


def test_one_package_member_is_pinned_one_way_only() -> None:
    pins: dict[tuple[str, str, str], tuple[int, str | None]] = {}
    for model in Catalogue.load().models.values():
        for file in model.files:
            for source in file.sources:
                if isinstance(source, PackageSource):
                    for part in source.parts:
                        key = (part.package, part.version, part.member)
                        assert pins.setdefault(key, (part.size, part.sha256)) == (
                            part.size,
                            part.sha256,
                        )


def test_vendored_files_are_the_pinned_ones() -> None:
    root = files("xiaozhi_trio.engines")
    found = 0
    for model in Catalogue.load().models.values():
        for file in model.files:
            for source in file.sources:
                if isinstance(source, VendoredSource):
                    found += 1
                    data = root.joinpath(source.resource).read_bytes()
                    assert len(data) == file.size
                    assert hashlib.sha256(data).hexdigest() == file.sha256
    assert found == 2
