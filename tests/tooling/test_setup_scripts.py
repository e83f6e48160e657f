"""The set-up scripts, on a path where every program they may call is a stand-in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

OLD = 'case "$2" in *version_info*) exit 1;; esac'
WITHOUT_ENSUREPIP = """case "$2" in
    *ensurepip*) [ -e "$CALLS.venv" ] ;;
    *%d.%d*) echo 3.12 ;;
    *executable*) echo "$0" ;;
esac"""
WHOLE = 'case "$2" in *executable*) echo "$0";; esac'


@attrs.frozen
class Machine:
    """A folder of stand-ins that is the whole path."""

    folder: Path

    def has(self, program: str, body: str = "exit 0") -> None:
        """Add a program that notes how it was called and then does `body`."""
        path = self.folder / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >>"$CALLS"\n{body}\n', "utf-8")
        path.chmod(0o755)

    def has_no(self, program: str) -> None:
        (self.folder / program).unlink()

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """The exit status and what was written to standard output and error."""
        done = subprocess.run(
            ["/bin/sh", TOOLS / script, *arguments],
            env={"PATH": str(self.folder), "CALLS": str(self._calls), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def calls(self, program: str) -> list[str]:
        """The arguments of each call of a program."""
        lines = self._calls.read_text("utf-8").splitlines() if self._calls.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{program} ")]

    @property
    def _calls(self) -> Path:
        return self.folder / "calls"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian, as root, with nothing that could be installed yet."""
    for program in ("dirname", "env", "sh", "touch"):
        path = shutil.which(program)
        assert path is not None
        (tmp_path / program).symlink_to(path)
    machine = Machine(tmp_path)
    machine.has("uname", "echo Linux")
    machine.has("id", "echo 0")
    machine.has("apt-get")
    return machine


def install(machine: Machine) -> tuple[int, str]:
    status, _, told = machine.run("install_system_package.sh", "libopusfile0", "opusfile")
    return status, told


INSTALL = "-o DPkg::Lock::Timeout=120 install --yes --no-install-recommends libopusfile0"
ADVICE = "apt install libopusfile0 (Debian, Ubuntu),\nbrew install opusfile (macOS)"


def test_root_installs_with_apt(machine: Machine) -> None:
    assert install(machine) == (0, "")
    assert machine.calls("apt-get") == [INSTALL]


def test_package_lists_are_fetched_where_they_lack_the_package(machine: Machine) -> None:
    machine.has("apt-get", '[ "$1" = update ] && touch "$CALLS.lists"; [ -e "$CALLS.lists" ]')
    assert install(machine) == (0, "")
    assert machine.calls("apt-get") == [INSTALL, "update", INSTALL]


def test_apt_without_success_is_told(machine: Machine) -> None:
    machine.has("apt-get", "exit 100")
    status, told = install(machine)
    assert status == 1
    assert "apt-get could not install libopusfile0" in told
    assert ADVICE in told


def test_others_install_through_sudo(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    machine.has("sudo", '[ "$1" = -n ] && shift; "$@"')
    machine.has("true")
    assert install(machine) == (0, "")
    assert machine.calls("sudo")[-1].endswith(f"apt-get {INSTALL}")


@pytest.mark.parametrize("sudo", [None, "exit 1"], ids=["no sudo", "sudo wants a password"])
def test_without_rights_nothing_is_tried(machine: Machine, sudo: str | None) -> None:
    machine.has("id", "echo 1000")
    if sudo is not None:
        machine.has("sudo", sudo)
    status, told = install(machine)
    assert status == 1
    assert "only root may install it" in told
    assert ADVICE in told
    assert machine.calls("apt-get") == []


def test_a_mac_installs_with_homebrew(machine: Machine) -> None:
    machine.has("uname", "echo Darwin")
    machine.has("brew")
    assert install(machine) == (0, "")
    assert machine.calls("brew") == ["install opusfile"]


@pytest.mark.parametrize("system", ["Darwin", "Linux"])
def test_no_package_manager_is_told(machine: Machine, system: str) -> None:
    machine.has("uname", f"echo {system}")
    machine.has_no("apt-get")
    status, told = install(machine)
    assert status == 1
    assert ADVICE in told


def test_libraries_that_are_there_need_nothing(machine: Machine) -> None:
    machine.has("python")
    assert machine.run("system_libraries.sh", "python") == (0, "", "")
    assert machine.calls("apt-get") == []


def test_missing_libraries_are_installed_and_looked_for_again(machine: Machine) -> None:
    machine.has("python", '[ -e "$CALLS.library" ]')
    machine.has("apt-get", 'touch "$CALLS.library"')
    assert machine.run("system_libraries.sh", "python")[0] == 0
    assert machine.calls("apt-get") == [INSTALL]


def test_libraries_that_are_not_found_even_then_are_told(machine: Machine) -> None:
    machine.has("python", "echo not found >&2; exit 1")
    status, _, told = machine.run("system_libraries.sh", "python")
    assert status == 1
    assert "not found" in told


def test_the_newest_python_that_is_whole_is_taken(machine: Machine) -> None:
    machine.has("python3.13", WITHOUT_ENSUREPIP)
    machine.has("python3.12", "exit 127")
    machine.has("python3.11", WHOLE)
    machine.has("python3", WHOLE)
    status, found, _ = machine.run("find_python.sh")
    assert (status, found.strip()) == (0, str(machine.folder / "python3.11"))
    assert machine.calls("apt-get") == []


def test_a_named_python_is_taken(machine: Machine) -> None:
    machine.has("python3.13", WHOLE)
    machine.has("mine", WHOLE)
    status, found, _ = machine.run("find_python.sh", PYTHON="mine")
    assert (status, found.strip()) == (0, str(machine.folder / "mine"))


def test_the_python_that_runs_this_would_do(machine: Machine) -> None:
    status, found, told = machine.run("find_python.sh", PYTHON=sys.executable)
    assert (status, found.strip(), told) == (0, sys.executable, "")


@pytest.mark.parametrize("name", ["python3", "mine"])
def test_an_old_python_is_told(machine: Machine, name: str) -> None:
    machine.has(name, OLD)
    status, found, told = machine.run("find_python.sh", PYTHON="" if name == "python3" else name)
    assert (status, found) == (1, "")
    assert "Python 3.11 or newer is needed" in told
    assert "make PYTHON=" in told


def test_debians_part_of_a_python_is_installed(machine: Machine) -> None:
    machine.has("python3", WITHOUT_ENSUREPIP)
    machine.has("apt-get", 'touch "$CALLS.venv"')
    status, found, _ = machine.run("find_python.sh")
    assert (status, found.strip()) == (0, str(machine.folder / "python3"))
    assert machine.calls("apt-get")[0].endswith(" python3.12-venv")
