"""Finding, reading and checking the configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from xiaozhi_trio.config.errors import ConfigError, Problem
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.config.structuring import name_of, structure_settings, unfit_values
from xiaozhi_trio.config.toml_lines import locate_statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xiaozhi_trio.config.toml_lines import KeyPath

DEFAULT_NAME = "config.toml"
"""Looked for in the working directory."""
PATH_VARIABLE = "XIAOZHI_TRIO_CONFIG"
"""Environment variable that names the file where the command line does not."""


def load_settings(
    path: Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a file, or the defaults where there is none.

    Without a path the file is the one named by `XIAOZHI_TRIO_CONFIG`, else
    `config.toml` in the working directory, else none: the server runs the same
    without a file and with an empty one. Blocks on the file system.

    Raises `ConfigError` with every problem found.
    """
    file = find_config(path, environment=environment)
    if file is None:
        return Settings()
    return parse_settings(_read(file), file=str(file), environment=environment)


def find_config(
    path: Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """The file that `load_settings` reads, or None where it uses the defaults.

    A file that was named is not looked for: reading it tells best what is wrong.
    """
    if path is not None:
        return path
    if named := environment.get(PATH_VARIABLE):
        return Path(named)
    default = Path(DEFAULT_NAME)
    return default if default.exists() else None


def parse_settings(document: str, *, file: str, environment: Mapping[str, str]) -> Settings:
    """The settings of a TOML document; `file` is how errors call it. Raises `ConfigError`."""
    # A byte order mark is what some editors begin UTF-8 with, and TOML has plain newlines only.
    document = document.removeprefix("\ufeff").replace("\r\n", "\n")
    tables = _parse(document, file)
    try:
        return structure_settings(tables, environment)
    except ExceptionGroup as error:
        lines = locate_statements(document)
        problems = [
            Problem(
                file=file,
                line=lines.line_of(path),
                key=name_of(path, table=_is_table(tables, path)),
                message=unfit.message,
                fix=unfit.fix,
            )
            for path, unfit in unfit_values(error)
        ]
    raise ConfigError(sorted(problems, key=lambda problem: (problem.line or 0, problem.key)))


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        message = "there is no such file"
        fix = "check the name, or leave it out to run with the defaults"
    except IsADirectoryError:
        message = "this is a folder, expected a TOML file"
        fix = "name the file; a container makes a folder where the file to mount is missing"
    except UnicodeDecodeError as error:
        message = f"byte {error.start + 1} is not UTF-8"
        fix = "save the file as UTF-8"
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        fix = "let the server's user read it"
    raise ConfigError([Problem(file=str(file), message=message, fix=fix)])


def _parse(document: str, file: str) -> dict[str, Any]:
    try:
        return tomli.loads(document)
    except tomli.TOMLDecodeError as error:
        problem = Problem(
            file=file,
            line=error.lineno,
            column=error.colno,
            message=f"this is not TOML: {error.msg}",
            fix=_syntax_fix(error),
        )
    except (ValueError, RecursionError):
        # The parser lets pass what Python itself refuses: a number of thousands of
        # digits, or values nested too deep.
        problem = Problem(
            file=file,
            message="this is not usable TOML: a number is too long or values are nested too deep",
            fix="shorten it",
        )
    raise ConfigError([problem])


def _syntax_fix(error: tomli.TOMLDecodeError) -> str:
    if "twice" in error.msg or "overwrite" in error.msg:
        return "keep one of the two places where it is set"
    if "Invalid value" in error.msg:
        return "write texts in quotes, and true or false in lower case"
    return "correct the syntax there"


def _is_table(tables: Mapping[str, Any], path: KeyPath) -> bool:
    node: Any = tables
    for key in path:
        match node, key:
            case (dict(), _) if key in node:
                node = node[key]
            case (list(), int()):
                node = node[key]
            case _:
                return False
    return isinstance(node, dict) or (
        isinstance(node, list) and bool(node) and all(isinstance(item, dict) for item in node)
    )
