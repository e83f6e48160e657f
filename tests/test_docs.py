"""What the documentation names exists, and what a peer can be told is documented."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections import defaultdict
from pathlib import Path

import attrs
import click
import pytest
import tomli

from xiaozhi_trio.cli import handshake_probe
from xiaozhi_trio.cli.command import program
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.registry import EngineKind
from xiaozhi_trio.testing.scenario_file import parse_scenario

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "xiaozhi_trio"
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
GROUPS = {kind.group for kind in EngineKind}

REASON_AT = {
    "HandshakeRefused": "reason",
    "TokenInvalid": 0,
    "HelloRefused": 0,
    "ProtocolViolation": 0,
    "Dialect": 1,
    "Closing": 1,
    "RequestRefused": 1,
    "error_response": 1,
}
"""Where the reason stands among the arguments of what carries one to a peer or the log."""


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text("utf-8"))


def code(page: Path) -> list[str]:
    """Fenced blocks and inline code."""
    blocks = [block for _, block in FENCED.findall(page.read_text("utf-8"))]
    return blocks + INLINE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def setting_names(kind: type, prefix: str = "") -> set[str]:
    """Tables and settings by their dotted names."""
    names = set()
    for field in attrs.fields(attrs.resolve_types(kind)):
        names.add(f"{prefix}{field.name}")
        if isinstance(field.type, type) and attrs.has(field.type):
            names |= setting_names(field.type, f"{prefix}{field.name}.")
    return names


SETTINGS = setting_names(Settings)


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", prose(page))
    for target, fragment in links:
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not fragment or fragment in anchors(file), f"{target}#{fragment}"


@each_page
def test_settings_exist(page: Path) -> None:
    text = prose(page)
    named = {f"{table}.{key}" for table, key in re.findall(r"`?\[([a-z_.]+)\] ([a-z_]+)\b", text)}
    sections = {field.name for field in attrs.fields(Settings)}
    named |= {
        name
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", text)
        if name.partition(".")[0] in sections and name.rpartition(".")[2] not in {"md", "py"}
    }
    assert named <= SETTINGS, named - SETTINGS


@each_page
def test_configuration_examples_are_valid(page: Path) -> None:
    for language, block in FENCED.findall(page.read_text("utf-8")):
        if language == "toml" and "steps" in tomli.loads(block):
            parse_scenario(block, file=page.name)
        elif language == "toml" and "project" not in tomli.loads(block):
            variables = re.findall(r"\$\{(\w+)\}", block)
            parse_settings(block, file=page.name, environment=dict.fromkeys(variables, "key"))


@each_page
def test_commands_exist(page: Path) -> None:
    for text in code(page):
        for first, second in re.findall(r"(?:^|[\s/])xiaozhi-trio ([a-z]+)(?: ([a-z]+))?", text):
            command = program.commands.get(first)
            assert command is not None, first
            if isinstance(command, click.Group) and second:
                assert second in command.commands, f"{first} {second}"


@each_page
def test_modules_exist(page: Path) -> None:
    text = "\n".join(code(page))
    for path in re.findall(r"(?<![\w/.])(?:[a-z_]+/)*[a-z_]+\.py\b", text):
        found = (SOURCE / path).is_file() or (TOP / path).is_file()
        assert found or path.startswith("xiaozhi_") or "/" not in path, path
    for name in set(re.findall(r"\bxiaozhi_trio(?:\.[A-Za-z_]+)+", text)) - GROUPS:
        module, _, member = name.rpartition(".")
        if member[0].islower():
            assert importlib.util.find_spec(name) is not None, name
        else:
            assert hasattr(importlib.import_module(module), member), name


def test_both_readmes_show_the_same_examples() -> None:
    english, chinese = (TOP / name for name in ("README.md", "README.zh-CN.md"))
    assert FENCED.findall(english.read_text("utf-8")) == FENCED.findall(chinese.read_text("utf-8"))


def reasons() -> dict[str, set[str]]:
    """Every literal reason in the source, by the name of what carries it."""
    found = defaultdict(set)
    for file in SOURCE.rglob("*.py"):
        if file.parent == SOURCE / "bench":
            # What stands in for other servers refuses in their words.
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Name | ast.Attribute
            ):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name not in REASON_AT:
                continue
            where = REASON_AT[name]
            arguments = [keyword.value for keyword in node.keywords if keyword.arg == where]
            if isinstance(where, int):
                arguments = node.args[where : where + 1]
            for argument in arguments:
                found[name] |= {
                    part.value
                    for part in ast.walk(argument)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    return found


@pytest.mark.parametrize("page", ["protocol.md", "troubleshooting.md", "troubleshooting.zh-CN.md"])
def test_every_reason_is_documented(page: str) -> None:
    documented = set(INLINE.findall(prose(TOP / "docs" / page)))
    found = reasons()
    assert found.keys() == REASON_AT.keys()
    for name, words in found.items():
        assert words <= documented, (name, words - documented)


@pytest.mark.parametrize(
    ("page", "language"), [("troubleshooting.md", "en"), ("troubleshooting.zh-CN.md", "zh")]
)
def test_every_reason_of_the_probe_is_documented(page: str, language: str) -> None:
    text = (TOP / "docs" / page).read_text("utf-8")
    rows = re.findall(r"^\| `\w+` \| .* \| .* \| .* \|$", text, re.MULTILINE)
    assert rows
    assert set(rows) == {
        f"| `{rule.reason}` | {rule.symptom.of(language)} | {rule.cause.of(language)} "
        f"| {rule.fix.of(language)} |"
        for rule in handshake_probe.RULES.values()
    }


def test_both_troubleshooting_pages_name_the_same_things() -> None:
    english, chinese = (
        (TOP / "docs" / name).read_text("utf-8")
        for name in ("troubleshooting.md", "troubleshooting.zh-CN.md")
    )
    assert FENCED.findall(english) == FENCED.findall(chinese)
    first_cells = r"^\| (`.*?`)(?: and others| 及其他| \|)"
    named = [
        [set(INLINE.findall(cell)) for cell in re.findall(first_cells, text, re.MULTILINE)]
        for text in (english, chinese)
    ]
    assert named[0] == named[1]
