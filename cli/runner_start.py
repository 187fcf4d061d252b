"""`dstack-runner start`: picks up jobs and runs them, until interrupted."""

import os
from dataclasses import replace
from pathlib import Path

import click

from cli.daemons import log_to_stderr, on_signals
from cli.terminal import say
from dstack.ledger.remote import find_remote
from dstack.model.errors import Invalid
from runner.config import read_config, state_folder
from runner.main import RunnerDaemon, parts_of

EXAMPLE = """\b
Examples:
  dstack-runner start
  dstack-runner start --takeover     # the name's last machine is gone for good"""


@click.command(epilog=EXAMPLE)
@click.option("--takeover", is_flag=True, help="Take the name over from another machine that seems alive.")
@click.pass_obj
def command(state: Path | None, *, takeover: bool) -> None:
    """Run jobs until interrupted. What runs then goes on, and the next start takes it over."""
    folder = state or state_folder(os.environ)
    config = read_config(folder)
    if config is None or config.remote is None:
        msg = "this runner has no state remote yet: `dstack-runner config --remote PATH`"
        raise Invalid(msg)
    remote = find_remote(config.remote, Path.cwd())
    parts = parts_of(config, folder, remote)
    daemon = RunnerDaemon(replace(parts, takeover=takeover))
    log_to_stderr()
    on_signals(lambda: daemon.shutdown(stop_attempts=False))
    say(f"Runner {config.name} of {remote.url} ({', '.join(config.executors)}). ^C ends it; jobs that run go on.")
    daemon.run()
