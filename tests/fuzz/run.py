"""Fuzz a parser with atheris: coverage shows it which bytes get further.

Usage: run.py TARGET --seconds N [--corpus FOLDER]

TARGET is one of those in targets.py, or `all`, which takes turns by the first byte.
What was learned is kept in the corpus for the next time (.setup/fuzz unless said
otherwise). Ends with another status than 0 where a target raised; the bytes that did it
are then in a file beside the corpus, which `run.py TARGET --once FILE` tries again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import atheris

with atheris.instrument_imports(include=["xiaozhi_trio", "targets"]):
    from targets import TARGETS, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

TOP: Final = Path(__file__).resolve().parents[2]
LONGEST_BYTES: Final = 4096
LONGEST_SECONDS: Final = 5
"""A parser that takes longer over `LONGEST_BYTES` can be used to stall the server."""


def of_all(targets: Sequence[Target]) -> Target:
    """All targets as one, chosen by the first byte."""

    def run(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)].run(data[1:])

    seeds = (bytes([number]) + seed for number, each in enumerate(targets) for seed in each.seeds)
    return Target("all", run, tuple(seeds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=TOP / ".setup" / "fuzz")
    parser.add_argument("--once", type=Path)
    options = parser.parse_args()
    chosen = TARGETS.get(options.target) or of_all(list(TARGETS.values()))
    if options.once:
        chosen.run(options.once.read_bytes())
        return
    corpus = options.corpus / chosen.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(chosen.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST_BYTES}",
            f"-timeout={LONGEST_SECONDS}",
            f"-artifact_prefix={options.corpus}/{chosen.name}-",
            str(corpus),
        ],
        chosen.run,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
