"""The `dstack-runner` command: a machine of the pool. Only what `--help` needs is imported here."""

import sys
from pathlib import Path

import click

from cli.door import passing
from cli.group import TERMS, LazyGroup
from cli.index import RUNNER_COMMANDS
from dstack import __version__

EXAMPLE = """\b
Examples:
  dstack-runner config --remote /srv/git/state.git --executor docker --executor process
  dstack-runner start
  dstack-runner status"""


@click.group(
    cls=LazyGroup,
    context_settings=TERMS,
    epilog=EXAMPLE,
    help="A machine of the pool: picks up the jobs assigned to it and runs them.",
)
@click.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The runner's state folder; by default in your state folder (XDG_STATE_HOME).",
)
@click.version_option(__version__, prog_name="dstack-runner")
@click.pass_context
def runner(ctx: click.Context, state: Path | None) -> None:
    """Remember the state folder."""
    ctx.obj = state


runner.index = RUNNER_COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    return passing("dstack-runner", lambda: runner.main(argv, prog_name="dstack-runner", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
