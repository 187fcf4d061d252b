"""`dstack up`: controller and one runner in this process, until interrupted. Nothing to configure."""

import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import click

from cli.abandoned import end_abandoned
from cli.daemons import ENDING, controller_daemon, log_to_stderr
from cli.door import GOOD, TROUBLE
from cli.pool import runner_daemon
from cli.preparing import fresh_name
from cli.question import confirm
from cli.serving import http_option, serving
from cli.session import open_session, set_up
from cli.terminal import can_ask, say, tell
from controller.main import ControllerDaemon
from dstack.model import refs
from dstack.model.errors import DstackError, Failed
from runner.main import RunnerDaemon

EXAMPLE = """\b
Example:
  dstack up                    # then, in another terminal: dstack run hello"""

END_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0


@click.command(epilog=EXAMPLE)
@click.option("--name", metavar="NAME", help="The runner's name; otherwise one is made up, once.")
@http_option
@click.pass_obj
def command(folder: Path, *, name: str | None, http: str | None) -> int:
    """Start a controller and a runner for this repository on this machine, until interrupted."""
    session = open_session(folder)
    seen = set_up(session)
    place = session.place / "up"
    with _alone(place):
        log_to_stderr()
        taken = frozenset(ref for ref in map(refs.parse_runner, seen.found) if ref)
        known = _name(place, name, taken)
        runner = runner_daemon(session, seen, known, place / "runner")
        end_abandoned(session, seen)
        controller = controller_daemon(session, seen)
        with serving(http, session, seen, controller) as changed:
            controller.show(changed)
            both = Both(controller=controller, runner=runner)
            say(f"State remote {session.remote.url}, store {seen.store_url}, runner {known}. ^C ends it.")
            return both.run()


class Both:
    """The two daemons in threads, and what an interrupt does to them."""

    def __init__(self, *, controller: ControllerDaemon, runner: RunnerDaemon) -> None:
        """Nothing runs yet."""
        self._controller, self._runner = controller, runner
        controller.tell(runner.wake)
        runner.tell(controller.wake)
        # Its `put`, unlike an event's `set`, may be called in a signal handler.
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._terminated = False
        self._failure = ""

    def run(self) -> int:
        """Until interrupted, or the runner can't go on; the exit code."""
        deciding = threading.Thread(target=self._controller.run, name="controller", daemon=True)
        working = threading.Thread(target=self._work, name="runner", daemon=True)
        before = [(number, signal.signal(number, self._interrupt)) for number in ENDING]
        try:
            deciding.start()
            working.start()
            while working.is_alive() and not self._interrupted(0.5):
                pass
            self._end(working)
            self._controller.stop()
            deciding.join(END_SECONDS)
        finally:
            for number, handler in before:
                signal.signal(number, handler)
        if self._failure:
            tell(f"dstack: {self._failure}")
        return TROUBLE if self._failure else GOOD

    def _work(self) -> None:
        try:
            self._runner.run()
        except DstackError as error:
            self._failure = str(error)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)

    def _interrupted(self, seconds: float) -> bool:
        """Whether a signal came within this time."""
        try:
            number = self._signals.get(timeout=seconds)
        except Empty:
            return False
        self._terminated = self._terminated or number == signal.SIGTERM
        return True

    def _end(self, working: threading.Thread) -> None:
        """Stop what runs, or leave it; a second interrupt leaves it at once."""
        # Just started, the runner may not have read yet what it holds: nothing is stopped without the question.
        stop = self._terminated or not can_ask() or (bool(self._runner.held) and self._ask())
        self._runner.shutdown(stop_attempts=stop)
        end = time.monotonic() + PATIENCE_SECONDS
        while working.is_alive() and time.monotonic() < end:
            if self._interrupted(0.2):
                self._runner.shutdown(stop_attempts=False)

    def _ask(self) -> bool:
        count = len(self._runner.held)
        question = f"\n{count} at work. Stop them? (no: they go on, and the next `dstack up` takes them over)"
        try:
            return confirm(question)
        except (click.Abort, KeyboardInterrupt):
            while self._interrupted(0):
                pass  # it was the answer
            tell("")
            return False


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One `up` at a time for each work tree. Raises Failed."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = "`dstack up` is already running for this repository on this machine"
            raise Failed(msg) from error
        yield


def _name(place: Path, wanted: str | None, taken: frozenset[str]) -> str:
    """The name given, else the one this folder had before, else a new one."""
    path = place / "name"
    if wanted is None and path.exists():
        wanted = path.read_text().strip()
    name = refs.check_name(wanted, "runner") if wanted else fresh_name(taken)
    path.write_text(f"{name}\n")
    return name
