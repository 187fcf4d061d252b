"""Composes daemons for this machine: a controller over the session's remote, logging, and an orderly end."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from apscheduler.schedulers.background import BackgroundScheduler

from cli.code_watched import Coded, code_place
from cli.forge import reporting
from cli.session import Seen
from cli.signed_ledger import signing_in
from controller.main import ControllerDaemon, ControllerParts
from controller.naming import Naming
from dstack.ledger.archive import Archive
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.remote import Remote
from dstack.model.bucket import POLL_SECONDS
from dstack.model.refs import RunKey
from dstack.personal import layers_of
from dstack.store.location import open_store
from dstack.store.store import Store

ENDING = (signal.SIGINT, signal.SIGTERM)
NOISY = ("apscheduler", "boto3", "botocore", "watchfiles", "docker", "urllib3", "httpx", "httpcore")


class Seat(Protocol):
    """Where a controller works: see `cli.session.Session` and `cli.remote_session.RemoteSession`."""

    @property
    def remote(self) -> Remote:
        """The state remote."""
        ...

    @property
    def code(self) -> Coded:
        """Whose code runs."""
        ...

    @property
    def place(self) -> Path:
        """A folder of our own for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What daemons of one process share; `longest`: seconds that what fails waits at most.

    `watch`: whether the files of a remote on this machine are watched: each takes one of the few watches of a user.
    """

    timers: BackgroundScheduler | None = None
    longest: float | None = None
    watch: bool = True


def controller_daemon(
    session: Seat,
    seen: Seen,
    *,
    poll: float | None = None,
    only: RunKey | None = None,
    shared: Shared = Shared(),
) -> ControllerDaemon:
    """A controller with a cache of its own. `poll`: seconds; `only`: for this run alone."""
    repository = seen.known_repository()
    remote = session.remote
    code = code_place(session.code, remote, session.place)
    folder = session.place / ("controller-with-code" if code.lenders else "controller")

    def opened_cache() -> Cache:
        return Cache(folder, remote.url, lenders=code.lenders, context=remote.context(folder))

    cache = opened_cache()
    ledger = GitLedger(cache, signing=signing_in(session.place, seen.settings))

    def opened(url: str) -> Store:
        return open_store(url, repository, create=False)

    parts = ControllerParts(
        ledger=ledger,
        store=seen.store_url,
        open_store=opened,
        watched=remote.path if shared.watch else None,
        reach=remote.reach,
        poll=POLL_SECONDS[remote.reach] if poll is None else poll,
        only=only,
        personal=layers_of(os.environ),
        objects=lambda: cache.objects,
        open_archive=lambda: Archive(opened_cache()),
        reporter=None if only else reporting(session.code.url, remote.context(session.place), opened),
        timers=shared.timers,
        longest=shared.longest,
        code=None if only else code.parts(ledger, seen.settings, poll),
    )
    return ControllerDaemon(parts)


def log_to_stderr(level: int = logging.INFO) -> None:
    """What daemons have to say goes to standard error, without the chatter of libraries."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Naming())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def on_signals(stop: Callable[[], None], numbers: Sequence[signal.Signals] = ENDING) -> None:
    """Have SIGTERM and SIGINT, or those named, end a daemon in order.

    `stop` may take locks, and a handler runs amid code that holds them. So the handler only puts into a queue, which
    takes no lock, and a thread obeys.
    """
    came: SimpleQueue[int] = SimpleQueue()

    def obey() -> None:
        while came.get():
            stop()

    threading.Thread(target=obey, name="signals", daemon=True).start()
    for number in numbers:
        signal.signal(number, lambda number, _frame: came.put(number))
