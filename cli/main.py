"""The `dstack` command. Only what `--help` needs is imported here."""

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


@click.group(
    cls=LazyGroup,
    context_settings=TERMS,
    epilog=EXAMPLE,
    help="Run machine-learning workflows on a pool of machines, with git as the only database.",
)
@click.option("-C", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Do as if started in DIR.")
@click.version_option(__version__, prog_name="dstack")
@click.pass_context
def dstack(ctx: click.Context, folder: Path | None) -> None:
    """Remember the folder that the command is to work in."""
    ctx.obj = folder or Path()


dstack.index = COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    return passing("dstack", lambda: dstack.main(argv, prog_name="dstack", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
