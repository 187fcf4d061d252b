"""Ends what a `dstack run --local` that was killed has left: its jobs go on, and nobody else may look after them."""

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.pool import forget_runner, runner_daemon
from cli.session import Seen, Session
from dstack.model.errors import DstackError, Failed
from runner.main import RunnerDaemon
from runner.statefolder import locked

LOG = logging.getLogger(__name__)

FOLDER = "local"
LOCK = ".sweep"
NAME = "name"
PATIENCE_SECONDS = 10.0


def end_abandoned(session: Session, seen: Seen) -> threading.Thread:
    """Begin to, in a thread that need not be waited for: what it doesn't reach, the next one does.

    To be called before a runner of this process begins: one that has just ended looks like one that was killed.
    """
    left = tuple(_left(session.place / FOLDER))
    thread = threading.Thread(target=_end_all, args=(session.again(), seen, left), name="abandoned", daemon=True)
    thread.start()
    return thread


def _end_all(session: Session, seen: Seen, left: Sequence[Path]) -> None:
    """One process at a time. Each runner ends as one that is interrupted does: its jobs stopped, and reported so."""
    if not left:
        return
    try:
        with locked(session.place / FOLDER / LOCK):
            for folder in left:
                if (folder / NAME).exists():
                    _end(session, seen, folder)
    except Failed:
        LOG.debug("another process ends what was abandoned")


def _end(session: Session, seen: Seen, folder: Path) -> None:
    name = folder.name
    daemon = runner_daemon(session, seen, name, folder, private=True)
    ending = threading.Thread(target=_stop_all, args=(daemon,), daemon=True)
    ending.start()
    try:
        daemon.run()
        forget_runner(session, seen, name, folder)
        shutil.rmtree(folder, ignore_errors=True)
    except DstackError as error:
        LOG.warning("what a killed `dstack run --local` has left in %s is still there: %s", folder, error)


def _stop_all(daemon: RunnerDaemon) -> None:
    """Not before it knows what it has: what was killed may not have had the time to write that down."""
    daemon.tidied.wait(PATIENCE_SECONDS)
    daemon.shutdown(stop_attempts=True)


def _left(top: Path) -> Iterator[Path]:
    """Folders of runners that had begun (only then they hold their lock), and that nobody holds any more."""
    for name in sorted(top.glob(f"*/{NAME}")):
        try:
            with locked(name.parent):
                pass
        except Failed:
            continue
        yield name.parent
