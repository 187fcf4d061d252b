"""`dstack run --local`: controller and a private runner in this process, for one run alone."""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from cli.abandoned import FOLDER, end_abandoned
from cli.daemons import controller_daemon, log_to_stderr
from cli.local_fit import refuse_misfits
from cli.log_text import LogPrinter, prefixes
from cli.pool import forget_runner, runner_here
from cli.preparing import Order
from cli.reading import Reader
from cli.run_end import asked_locally, exit_code, followed
from cli.running import checked, submitted_run, told_if_left
from cli.session import Seen, Session
from cli.stopping import Wish, ask_for
from cli.submitted import line_of
from cli.terminal import tell
from controller.main import ControllerDaemon
from dstack.ledger.submit import Submitted
from dstack.model import refs
from dstack.model.errors import DstackError
from dstack.model.runspec import Desired
from runner.main import RunnerDaemon
from runner.parts import RunnerParts

END_SECONDS = 10.0
TAG_SECONDS = 10.0


def run_locally(session: Session, order: Order) -> int:
    """Submit the run for a runner of its own, and see it through; the exit code."""
    log_to_stderr(logging.WARNING)
    name = f"local-{secrets.token_hex(4)}"
    seen, prepared = checked(session, order, only=name)
    parts = runner_here(session, seen, name, session.place / FOLDER / name, private=True)
    refuse_misfits(session, seen, prepared, parts)
    abandoned = end_abandoned(session, seen)
    with _Runner(session, seen, parts) as runner:
        prepared, submitted = submitted_run(session, prepared, seen)
        with told_if_left(prepared):
            runner.works_for(submitted)
            line = line_of(prepared, submitted)
        with _deciding(session, seen, submitted, runner), told_if_left(prepared):
            end = followed(Reader(session), line, LogPrinter(prefixes=prefixes(line.jobs)), asked_locally)
            if prepared.spec.options.tag and exit_code(end) == 0:
                _wait_for_tag(session, submitted, prepared.spec.options.tag)
    # Cut short, it would leave more behind than it found: a run of which all is reused takes no time.
    abandoned.join(END_SECONDS)
    return exit_code(end)


def _wait_for_tag(session: Session, submitted: Submitted, tag: str) -> None:
    """It is given by the controller, which ends with this process."""
    end = time.monotonic() + TAG_SECONDS
    while session.poll().found.get(refs.tag(tag)) != submitted.root:
        if time.monotonic() > end:
            tell(f"{submitted.key.name} has not got its tag: `dstack tag {submitted.key.name} {tag}` gives it")
            return
        time.sleep(0.1)


class _Runner:
    """The private runner, in a thread, for the length of a `with`. If it fails, its run is aborted: nobody else may."""

    def __init__(self, session: Session, seen: Seen, parts: RunnerParts) -> None:
        self._session, self._seen, self._name, self._folder = session, seen, parts.name, parts.folder
        self._daemon = RunnerDaemon(parts)
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._lock = threading.Lock()
        self._run: str | None = None
        self._failed = False
        self._controller: ControllerDaemon | None = None
        self._daemon.tell(self._pushed)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.shutdown(stop_attempts=True)
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            forget_runner(self._session, self._seen, self._name, self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def beside(self, controller: ControllerDaemon) -> None:
        """Each then hears at once what the other one has pushed."""
        self._controller = controller
        controller.tell(self._daemon.wake)

    def works_for(self, submitted: Submitted) -> None:
        """The run is there."""
        with self._lock:
            self._run = submitted.key.name
            if self._failed:
                self._abort(self._run)

    def _pushed(self) -> None:
        if self._controller is not None:
            self._controller.wake()

    def _work(self) -> None:
        try:
            self._daemon.run()
        except DstackError as error:
            tell(f"the runner has failed: {error}")
            with self._lock:
                self._failed = True
                if self._run:
                    self._abort(self._run)

    def _abort(self, run: str) -> None:
        """In a session of its own: a cache is for one thread at a time."""
        try:
            ask_for(Reader(self._session.again()), Wish(run=run, desired=Desired.ABORT))
        except DstackError as error:
            tell(f"{run} can't be aborted: {error}")


@contextmanager
def _deciding(session: Session, seen: Seen, submitted: Submitted, runner: _Runner) -> Iterator[None]:
    """A controller for this run alone, in a thread."""
    controller = controller_daemon(session, seen, only=submitted.key)
    runner.beside(controller)
    thread = threading.Thread(target=controller.run, name="controller", daemon=True)
    thread.start()
    try:
        yield
    finally:
        controller.stop()
        thread.join(END_SECONDS)
