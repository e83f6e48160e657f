"""The command `xiaozhi-trio`."""

from __future__ import annotations

from xiaozhi_trio.cli.command import program

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process.

    Exit codes: 0 done, 1 failed, 2 wrong configuration or usage.
    """
    program(prog_name="xiaozhi-trio")
