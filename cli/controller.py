"""`dstack controller`: the controller as a daemon."""

from pathlib import Path

import click

from cli.daemons import controller_daemon, log_to_stderr, on_signals
from cli.session import open_session, set_up
from cli.terminal import tell

EXAMPLE = """\b
Example:
  dstack controller            # until interrupted; several may run, on any machines"""


@click.command(epilog=EXAMPLE)
@click.option("--poll", type=click.FloatRange(min=0.05), metavar="SECONDS",
              help="How often the state remote is read; otherwise 2, and 5 on GitHub and GitLab.")  # fmt: skip
@click.pass_obj
def command(folder: Path, *, poll: float | None) -> None:
    """Plan runs, place their jobs on runners, and record how they end; until interrupted."""
    session = open_session(folder)
    seen = set_up(session)
    seen.store()
    log_to_stderr()
    daemon = controller_daemon(session, seen, poll=poll)
    on_signals(daemon.stop)
    tell(f"Controller of {session.remote.url}; store {seen.store_url}")
    daemon.run()
