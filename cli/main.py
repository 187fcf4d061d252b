"""The `dstack` command. Only what `--help` needs is imported here."""

import os
import sys
from pathlib import Path

import click

from cli.door import passing
from cli.group import TERMS, LazyGroup
from cli.index import COMMANDS
from dstack import __version__

EXAMPLE = """\b
Examples:
  dstack up                  # in one terminal
  dstack run hello           # in another
  dstack status"""


def _remember(ctx: click.Context, _param: click.Parameter, folder: Path | None) -> Path | None:
    """The folder that the command is to work in; a callback, for completion runs no command."""
    ctx.obj = folder or Path()
    return folder


@click.group(
    cls=LazyGroup,
    context_settings=TERMS,
    epilog=EXAMPLE,
    help="Run machine-learning workflows on a pool of machines, with git as the only database.",
)
@click.option(
    "-C",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    callback=_remember,
    help="Do as if started in DIR.",
)
@click.version_option(__version__, prog_name="dstack")
def dstack(folder: Path | None) -> None:
    """All that its options say is remembered in the context."""


dstack.index = COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    if asked := os.environ.get("_DSTACK_COMPLETE"):
        from cli.completion import answer  # noqa: PLC0415 (only a shell needs it)

        return answer(dstack, asked)
    return passing("dstack", lambda: dstack.main(argv, prog_name="dstack", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
