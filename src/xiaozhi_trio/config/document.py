"""The commented `config.toml` and the reference page, generated from the settings.

`python -m xiaozhi_trio.config.document [folder]` writes both.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from xiaozhi_trio.config.agents import AGENTS, agent_sections
from xiaozhi_trio.config.setting import facts_of
from xiaozhi_trio.config.settings import AgentSettings, Settings
from xiaozhi_trio.config.values import (
    default_of,
    expected_of,
    is_setting,
    toml_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WIDTH = 96

_FILE_HEAD = """\
The configuration of xiaozhi-trio. Generated: every setting with its default.

The server runs the same without this file. Keep what you change and delete the
rest: defaults then follow the version that is installed. `xiaozhi-trio check`
tells whether a file is right, and if not, what to change on which line.

A secret may stand in an environment variable: api_key = "${OPENAI_API_KEY}".
"""

_PAGE_HEAD = """\
# Configuration

The server needs no configuration file. It reads the one given by `--config`, else the one
named by the environment variable `XIAOZHI_TRIO_CONFIG`, else `config.toml` in the working
directory, and takes the default of every setting that the file leaves out. Relative paths
start at the working directory.

`xiaozhi-trio check` reports every problem of a file at once, with its line and the fix:
unknown and misspelt names, values of the wrong type or out of bounds, settings that
contradict each other. Nothing is coerced: `"600"` is text and not the number 600.

Devices may have settings of their own, by [`[[agents]]`](#agents) at the end of this page.

A secret may stay out of the file: `api_key = "${OPENAI_API_KEY}"` takes the value of that
environment variable, and an unset one is an error.

An engine that is not built in has its own table, `[asr.my-engine]`, handed to it as it
stands; there, keys that end in `key`, `secret`, `token` or `password` are secrets. `engine`
chooses it by the same name.

A table of any other name that says `engine` is a further one of that engine, with that engine's
settings: `[llm.cloud]` with `engine = "openai"` is what `cloud` stands for in `[llm] engine` and
`fallback`. [engines.md](engines.md#several-of-one-engine) tells more.

This page and the commented [`config.toml`](../config.toml) are generated from the code.
"""


_AGENTS_EXAMPLE = """\
[[agents]]
name = "grandma"
devices = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:*"]

[agents.listening]
end_silence_ms = 1200

[agents.conversation]
prompt = "You keep grandma company. Answer calmly, in one short sentence."
greeting_zh = ""
"""


@attrs.frozen
class _Section:
    name: str
    """`asr.whisper`, as in the file."""
    doc: str
    settings: tuple[attrs.Attribute[Any], ...]


def config_toml() -> str:
    """A file that says everything and changes nothing: it loads to `Settings()`."""
    parts = [_commented(_FILE_HEAD)]
    for section in _sections():
        lines = [f"[{section.name}]", _commented(section.doc)]
        for attribute in section.settings:
            lines += ["", _commented(_comment_of(attribute)), _assignment(attribute)]
        parts.append("\n".join(lines))
    parts.append(_commented(_agents_comment()))
    return "\n\n".join(parts) + "\n"


def reference_page() -> str:
    """The same in Markdown, a table a section."""
    parts = [_PAGE_HEAD, *map(_chapter, _sections())]
    agents = _section(f"[{AGENTS}]", AgentSettings)
    tables = ", ".join(f"`{table}`" for table in _agent_tables())
    parts.append(f"{_chapter(agents)}\nIts tables are {tables}.\n\n```toml\n{_AGENTS_EXAMPLE}```\n")
    return "\n".join(parts)


def generated_files() -> dict[str, str]:
    """What is committed, by path from the top of the repository."""
    return {"config.toml": config_toml(), "docs/configuration.md": reference_page()}


def _sections(cls: type[Any] = Settings, path: tuple[str, ...] = ()) -> Iterator[_Section]:
    attrs.resolve_types(cls)
    fields = attrs.fields(cls)
    if path:
        yield _section(".".join(path), cls)
    for attribute in fields:
        if attribute.type is not None and attrs.has(attribute.type):
            yield from _sections(attribute.type, (*path, attribute.name))


def _section(name: str, cls: type[Any]) -> _Section:
    settings = tuple(filter(is_setting, attrs.fields(cls)))
    return _Section(name, inspect.cleandoc(cls.__doc__ or ""), settings)


def _agent_tables() -> list[str]:
    return [f"[{AGENTS}.{name}]" for name in agent_sections(AgentSettings)]


def _agents_comment() -> str:
    """What `[[agents]]` takes, and an example: a file that has none must have none."""
    section = _section(AGENTS, AgentSettings)
    parts = [
        section.doc,
        *(f"{attribute.name}: {facts_of(attribute).why}" for attribute in section.settings),
        f"{', '.join(_agent_tables())}: what is different. For example:",
        textwrap.indent(_AGENTS_EXAMPLE, " " * 4),
    ]
    return "\n\n".join(parts)


def _chapter(section: _Section) -> str:
    lines = [f"## `[{section.name}]`", "", section.doc]
    if section.settings:
        lines += ["", "| setting | default | takes | what for |", "|---|---|---|---|"]
        lines += [_row(attribute) for attribute in section.settings]
    return "\n".join(lines) + "\n"


def _commented(text: str) -> str:
    lines = [
        wrapped
        for line in text.strip().splitlines()
        for wrapped in (textwrap.wrap(line, _WIDTH) or [""])
    ]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _comment_of(attribute: attrs.Attribute[Any]) -> str:
    facts = facts_of(attribute)
    # What a text, a list or a truth value takes is seen from the default beside it.
    if facts.choices is None and attribute.type not in (int, float):
        return facts.why
    expected = expected_of(attribute.type, facts)
    return f"{facts.why}\n{expected[0].upper()}{expected[1:]}."


def _assignment(attribute: attrs.Attribute[Any]) -> str:
    line = f"{attribute.name} = {_default(attribute)}"
    default = default_of(attribute)
    if len(line) <= _WIDTH or not isinstance(default, tuple):
        return line
    items = (f"    {toml_of(item)}," for item in default)
    return "\n".join([f"{attribute.name} = [", *items, "]"])


def _default(attribute: attrs.Attribute[Any]) -> str:
    return '""' if facts_of(attribute).secret else toml_of(default_of(attribute))


def _row(attribute: attrs.Attribute[Any]) -> str:
    facts = facts_of(attribute)
    takes = "a secret" if facts.secret else expected_of(attribute.type, facts)
    cells = (f"`{attribute.name}`", f"`{_default(attribute)}`", takes, facts.why)
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def main(arguments: Sequence[str]) -> None:
    """Write the generated files under a folder, the working directory by default."""
    folder = Path(arguments[0] if arguments else ".")
    for name, text in generated_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
