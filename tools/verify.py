"""Every check of `make test`, soonest failing first, or only those named as arguments.

Quick checks are all run, whatever the others say, since their mistakes are mended
together; what takes minutes is begun only after all of them have passed. Ends with 1
where a check failed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

TOP: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = Path(sys.executable).parent


@attrs.frozen
class Check:
    """One part of the verification."""

    name: str
    commands: Sequence[str]
    """Run in turn until one fails; the first word is a program of this environment."""
    quick: bool = False

    def run(self) -> bool:
        """Whether all commands ended well."""
        return all(_run(command) for command in self.commands)


CHECKS: Final = (
    Check("lint", ["ruff check ."], quick=True),
    Check("format", ["ruff format --check ."], quick=True),
    Check("imports", ["lint-imports"], quick=True),
    Check("types", ["mypy"], quick=True),
    Check("models", ["xiaozhi-trio models pull", "xiaozhi-trio models pull kokoro-voices-extra"]),
    Check("tests", ["coverage erase", "coverage run -m pytest --durations=10"]),
    Check("coverage", ["coverage combine --quiet", "coverage report"]),
)


def main(names: Sequence[str], checks: Sequence[Check] = CHECKS) -> int:
    """Run the named checks, or all; tell how long each took. Gives the exit status."""
    unknown = set(names) - {check.name for check in checks}
    if unknown:
        known = " ".join(check.name for check in checks)
        _say(f"no such check: {' '.join(sorted(unknown))}; there are: {known}")
        return 2
    chosen = [check for check in checks if check.name in names or not names]
    outcomes: list[str] = []
    failed: list[str] = []
    for check in chosen:
        if failed and not check.quick:
            outcomes.append(f"{check.name:<10} not run")
            continue
        _say(f"\n== {check.name}")
        began = time.monotonic()
        passed = check.run()
        seconds = time.monotonic() - began
        outcomes.append(f"{check.name:<10} {seconds:7.1f} s  {'passed' if passed else 'FAILED'}")
        if not passed:
            failed.append(check.name)
    _say("\n== verification")
    for outcome in outcomes:
        _say(outcome)
    if failed:
        _say(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def _run(command: str) -> bool:
    program, *arguments = shlex.split(command)
    _say(f"$ {command}")
    return (
        subprocess.run(
            [str(PROGRAMS / program), *arguments], cwd=TOP, stdin=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def _say(line: str) -> None:
    # What the programs write must come in its order.
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
