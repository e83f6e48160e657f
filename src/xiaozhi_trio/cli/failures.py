"""How a command fails: a plain reason and the fix on stderr, and an exit code."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from xiaozhi_trio.config.errors import Problem

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class CommandFailed(click.ClickException):
    """What was asked could not be done. Exit code 1."""

    exit_code = 1


class ConfigurationWrong(click.ClickException):
    """The configuration has to be changed first. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def show(self, file: IO[Any] | None = None) -> None:
        """Print every problem: where and which key, then what is wrong, then what to do."""
        count = len(self.problems)
        click.echo(
            click.style(
                f"The configuration has {'a problem' if count == 1 else f'{count} problems'}:",
                fg="red",
                bold=True,
            ),
            file=file,
            err=True,
        )
        for problem in self.problems:
            subject = f"  {click.style(problem.key, bold=True)}" if problem.key else ""
            click.echo(f"\n{problem.location}{subject}", file=file, err=True)
            click.echo(f"    {problem.message}", file=file, err=True)
            click.echo(f"    {click.style('Fix:', fg='green')} {problem.fix}", file=file, err=True)


def run(work: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """`trio.run`, with what the user should read taken out of the groups that nurseries make.

    Raises click's Abort for Ctrl-C, a lone ClickException or EngineError as itself,
    and everything else as it comes, for it is a bug.
    """
    import trio

    from xiaozhi_trio.engines.errors import EngineError

    try:
        return trio.run(work, *arguments)
    except KeyboardInterrupt:
        raise click.Abort from None
    except EngineError as error:
        raise CommandFailed(str(error)) from error
    except BaseExceptionGroup as group:
        causes = list(leaves(group))
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise click.Abort from None
        if len(causes) == 1 and isinstance(causes[0], click.ClickException):
            raise causes[0] from group
        if all(isinstance(cause, EngineError) for cause in causes):
            raise CommandFailed("\n".join(map(str, causes))) from group
        raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, or the one exception that is no group."""
    if isinstance(error, BaseExceptionGroup):
        for cause in error.exceptions:
            yield from leaves(cause)
    else:
        yield error
