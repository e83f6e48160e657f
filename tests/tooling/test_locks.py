"""The lock files hold exact versions of all that is required, and nobody's addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Mapping

TOP = Path(__file__).resolve().parents[2]
LOCKS = {
    "requirements.lock.txt": ("embedded",),
    "requirements-dev.lock.txt": ("embedded", "dev"),
}


def pins(name: str) -> Mapping[str, str]:
    text = (TOP / name).read_text("utf-8").replace("\\\n", "")
    requirements = [Requirement(line.split(" --hash")[0]) for line in text.splitlines()]
    return {canonicalize_name(each.name): str(each.specifier) for each in requirements}


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_satisfies_the_project(name: str, extras: tuple[str, ...]) -> None:
    project = tomli.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    locked = pins(name)
    for requirement in map(Requirement, wanted):
        version = locked[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{name} has {requirement.name} {version}; run: make lock"
        )


def test_both_locks_agree() -> None:
    run, develop = map(pins, LOCKS)
    assert run.items() <= develop.items()


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_and_holds_no_address(name: str) -> None:
    text = (TOP / name).read_text("utf-8")
    assert "://" not in text
    assert "@" not in text
    assert not re.search(r"^\s*-(?!-hash=sha256:)", text, re.MULTILINE)
    for requirement in text.replace("\\\n", "").splitlines():
        assert re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement)
