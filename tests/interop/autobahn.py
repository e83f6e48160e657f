"""The Autobahn test suite's fuzzing client, which needs a Python 2.7, against a server that echoes.

Usage: autobahn.py (writes its part of docs/rfc6455.md anew)

A Python 2.7 is looked for in the variable PYTHON2, on the path and among pyenv's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    Report = Mapping[str, Mapping[str, Any]]

HERE: Final = Path(__file__).resolve().parent
TOP: Final = HERE.parents[1]
PAGE: Final = TOP / "docs" / "rfc6455.md"
REQUIREMENTS: Final = HERE / "requirements-autobahn.txt"
LIBRARIES: Final = TOP / ".setup" / "interop-autobahn"
SECONDS: Final = 300.0

MESSAGE_BYTES: Final = 16_777_216
"""The suite's longest messages have so many bytes."""
SECTIONS: Final = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "messages and fragments of up to 16 MiB, many small messages",
    "10": "automatic fragmentation",
}
"""Left out are 12 and 13: permessage-deflate is not negotiated."""
LONG: Final = frozenset("9")
"""Takes half a minute, because the suite masks and checks 300 MiB byte by byte."""

UNANSWERED: Final = frozenset("3.2 3.3 3.4 4.1.3 4.1.4 4.1.5 4.2.3 4.2.4 4.2.5 5.15".split())
"""Cases that break the protocol right behind a message, and would like to see its echo first."""

# The zope packages are found by way of a .pth file, which PYTHONPATH would not have read.
WSTEST: Final = (
    "import site, sys; site.addsitedir(sys.argv.pop(1)); "
    "from autobahntestsuite.wstest import run; run()"
)
VERSION: Final = "import sys; print('%d.%d' % sys.version_info[:2])"


def find_python() -> str | None:
    """A Python 2.7 with pip; None where there is none."""
    return next(filter(_fits, _candidates()), None)


def _candidates() -> Iterator[str]:
    yield os.environ.get("PYTHON2", "")
    yield shutil.which("python2.7") or ""
    yield shutil.which("python2") or ""
    # Its shims stand for the versions that are switched on only.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, pyenv.glob("versions/2.7*/bin/python"))


def _fits(python: str) -> bool:
    if not python:
        return False
    asked = subprocess.run(
        [python, "-c", f"import pip; {VERSION}"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() == "2.7"


def install(python: str) -> None:
    """Put the suite where `run` finds it, unless it is there."""
    record = LIBRARIES / "requirements.sha256"
    wanted = hashlib.sha256(python.encode() + REQUIREMENTS.read_bytes()).hexdigest()
    if record.exists() and record.read_text() == wanted:
        return
    shutil.rmtree(LIBRARIES, ignore_errors=True)
    command = [python, "-m", "pip", "install", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--target", str(LIBRARIES)]
    subprocess.run([*command, "--requirement", str(REQUIREMENTS)], check=True)
    # Last, so that an installation cut short is begun anew.
    record.write_text(wanted)


def run(
    python: str, address: Mapping[str, Any], folder: Path, *, without: Collection[str] = ()
) -> Report:
    """Try the cases of all sections but those `without`; what came of each, by its number."""
    specification = {
        "outdir": str(folder / "reports"),
        "servers": [
            {
                "agent": "xiaozhi-trio",
                "url": f"ws://{address['host']}:{address['port']}/?device-id=autobahn",
                "options": {"version": 18},
            }
        ],
        "cases": [f"{section}.*" for section in SECTIONS if section not in without],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = folder / "fuzzingclient.json"
    file.write_text(json.dumps(specification), "utf-8")
    command = [python, "-c", WSTEST, str(LIBRARIES), "-m", "fuzzingclient", "-s", str(file)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
    reports = json.loads((folder / "reports" / "index.json").read_text("utf-8"))
    report: Report = reports["xiaozhi-trio"]
    return report


def objections(report: Report) -> dict[str, str]:
    """What the suite objects to and is not explained, by the number of the case."""
    found = {}
    for number, case in report.items():
        verdicts = {case["behavior"], case["behaviorClose"]}
        tolerated = {"OK", "INFORMATIONAL"} | ({"NON-STRICT"} if number in UNANSWERED else set())
        if not verdicts <= tolerated:
            found[number] = " ".join(sorted(verdicts - tolerated))
    return found


def rows(report: Report) -> Iterator[str]:
    """How many cases of each section there are and passed, in Markdown."""
    failed = objections(report)
    for section, about in SECTIONS.items():
        numbers = [number for number in report if number.partition(".")[0] == section]
        passed = len([number for number in numbers if number not in failed])
        if numbers:
            yield f"| {section} | {about} | {len(numbers)} | {passed} |"


def table(report: Report) -> str:
    """The sections and their sum."""
    passed = len(report) - len(objections(report))
    head = ["| section | about | cases | passed |", "|---|---|---|---|"]
    return "\n".join([*head, *rows(report), f"| | all | {len(report)} | {passed} |"])


def with_table(page: str, report: Report) -> str:
    """The page with the table of this report."""
    marked = re.compile(r"(<!-- autobahn -->\n).*?(<!-- /autobahn -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{table(report)}\n{match[2]}", page)


def main() -> None:
    python = find_python()
    if python is None:
        sys.exit("no Python 2.7 was found; name one in the variable PYTHON2")
    install(python)
    command = [sys.executable, str(HERE / "echo_gateway.py"), str(MESSAGE_BYTES)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server,
    ):
        assert server.stdout is not None
        report = run(python, json.loads(server.stdout.readline()), Path(folder))
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), report), "utf-8")
    failed = objections(report)
    print(failed or "no objections")  # noqa: T201 - this is its result
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
