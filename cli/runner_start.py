"""`dstack-runner start`: picks up jobs and runs them, until interrupted."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from cli.daemons import log_to_stderr, on_signals
from cli.terminal import say
from dstack.ledger.remote import find_remote
from dstack.model.errors import Invalid
from runner.config import read_config, state_folder
from runner.main import RunnerDaemon
from runner.parts import parts_of

EXAMPLE = """\b
Examples:
  dstack-runner start
  dstack-runner start --takeover     # the name's last machine is gone for good"""


@click.command(epilog=EXAMPLE)
@click.option("--takeover", is_flag=True, help="Take the name over from another machine that seems alive.")
@click.pass_obj
def command(state: Path | None, *, takeover: bool) -> None:
    """Run jobs until interrupted. What runs then goes on, and the next start takes it over.

    SIGTERM drains: what runs is finished first. A second SIGTERM stops what runs; a third, like ^C, leaves it.
    """
    folder = state or state_folder(os.environ)
    config = read_config(folder)
    if config is None or config.remote is None:
        msg = "this runner has no state remote yet: `dstack-runner config --remote PATH`"
        raise Invalid(msg)
    remote = find_remote(config.remote, Path.cwd())
    parts = parts_of(config, folder, remote)
    daemon = RunnerDaemon(replace(parts, takeover=takeover))
    log_to_stderr()
    on_signals(lambda: daemon.shutdown(stop_attempts=False), (signal.SIGINT,))
    on_signals(partial(next, _ends(daemon), None), (signal.SIGTERM,))
    say(f"Runner {config.name} of {remote.url} ({', '.join(config.executors)}). ^C ends it; jobs that run go on.")
    daemon.run()


def _ends(daemon: RunnerDaemon) -> Iterator[None]:
    """One step for each SIGTERM, the next when the last has been waited for long enough."""
    daemon.drain()
    yield
    daemon.shutdown(stop_attempts=True)
    yield
    while True:
        daemon.shutdown(stop_attempts=False)
        yield
