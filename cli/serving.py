"""The face of one repository's controller to the network: webhooks and wake-ups, for `--http`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from cli.fleet_config import read_secrets, secrets_in
from cli.session import Seen, Session
from cli.terminal import tell
from controller.configuration import default_name
from controller.fleet import Daemon
from dstack.model.hookpath import HOOKS, hook_path
from dstack.personal import state_folder
from webhooks.server import Receiver, Served, Standing, What

SECRET, TOKEN = "DSTACK_WEBHOOK_SECRET", "DSTACK_CONTROLLER_TOKEN"

http_option = click.option(
    "--http", metavar="ADDRESS", help="Listen for webhooks and wake-ups: HOST:PORT, or a PORT of this machine alone."
)


@contextmanager
def serving(http: str | None, session: Session, seen: Seen, daemon: Daemon) -> Iterator[Callable[[], None]]:
    """Listen meanwhile, if an address is given; what it gives is called when the state has changed.

    Raises Invalid, Failed.
    """
    if http is None:
        yield lambda: None
        return
    served = _served(session, seen)
    receiver = Receiver(
        http,
        [served],
        lambda _, what: daemon.wake_code() if what is What.CODE else daemon.wake(),
        standing=lambda: [_standing(served.name, daemon)],
        deliveries=state_folder(os.environ) / "controller" / f"deliveries-{served.repository[:12]}.json",
    )
    try:
        _introduce(receiver, served)
        yield lambda: receiver.changed(served.name)
    finally:
        receiver.stop()


def _served(session: Session, seen: Seen) -> Served:
    return Served(
        name=default_name(session.remote.url),
        secrets=_listed(SECRET),
        tokens=_listed(TOKEN),
        repository=seen.known_repository(),
    )


def _listed(variable: str) -> tuple[str, ...]:
    """From the variable, or from the file that its namesake with `_FILE` names. Raises Failed."""
    file = os.environ.get(f"{variable}_FILE")
    return secrets_in(os.environ.get(variable, "")) or (read_secrets(Path(file).expanduser()) if file else ())


def _introduce(receiver: Receiver, served: Served) -> None:
    """A path says nothing of the secret it was made of, and is of no use without it."""
    if served.secrets:
        tell(f"Webhooks: http://{receiver.address}{HOOKS}{hook_path(served.secrets[0], served.name)}")
    else:
        tell(f"Webhooks are refused: no secret is set. Give one with {SECRET}, or name a file with {SECRET}_FILE")
    if not served.tokens:
        tell(f"Nobody can wait at http://{receiver.address}: {TOKEN} or {TOKEN}_FILE gives runners and users a token")


def _standing(name: str, daemon: Daemon) -> Standing:
    done = daemon.progress()
    polled = None if done.polled_at is None else max(0.0, (datetime.now(UTC) - done.polled_at).total_seconds())
    return Standing(
        name=name, polled=polled, turns=done.turns, pushes=done.pushes, runs=done.runs, failures=done.failures
    )
