"""Many repositories in one controller: each in a thread of its own, with its own polls, back-off and failures."""

import logging
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from apscheduler.schedulers.background import BackgroundScheduler

from controller import naming
from controller.backoff import Backoff
from controller.trouble import Trouble
from dstack.ledger.waking import new_timers
from dstack.model.errors import DstackError

LOG = logging.getLogger(__name__)

LONGEST_SECONDS = 900.0
END_SECONDS = 30.0
# Who has not run `dstack init` yet needn't be asked about it all the time.
INIT_SECONDS = 10.0
# A daemon that ends for no reason is started again, but not at once.
CRASH_SECONDS = 5.0
NOT_YET = "it holds no dstack repository yet: run `dstack init` in a clone of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a daemon has done. `polled_at`: its last good look at the remote; `failure`: why later ones failed.

    `failures`: how often one did; `runs`: how many there are.
    """

    polled_at: datetime | None = None
    failure: str | None = None
    turns: int = 0
    pushes: int = 0
    failures: int = 0
    runs: int = 0


class Daemon(Protocol):
    """What serves one repository: see `controller.main.ControllerDaemon`."""

    def run(self) -> None:
        """Until stopped."""
        ...

    def stop(self) -> None:
        """Have `run` end soon."""
        ...

    def wake(self) -> None:
        """The state may have changed."""
        ...

    def wake_code(self) -> None:
        """The code may have changed."""
        ...

    def retry(self) -> None:
        """Wait no longer for what has failed."""
        ...

    def progress(self) -> Progress:
        """What it has done so far."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository to serve, known to people by its `name`. `url`: of its state remote, without credentials.

    `open` begins to serve it, on timers that all share; None means that nobody has set dstack up there yet. It may
    raise DstackError, and is called again later. `terms`: what it was made by; with other terms it is another one.
    """

    name: str
    url: str
    terms: Hashable = None
    open: Callable[[BackgroundScheduler], Daemon | None] = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How it is with one repository. `failure` None: all is well. `polled_at` None: there was no good look yet."""

    name: str
    url: str
    polled_at: datetime | None
    failure: str | None
    turns: int
    pushes: int
    failures: int
    runs: int


class Fleet:
    """Serves repositories until stopped. All methods may be called from any thread, but not from signal handlers."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        """Nothing is served yet. `jitter` gives a fresh number from 0 to 1."""
        self._jitter = jitter
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._leaving: list[Member] = []
        self._stopped = threading.Event()
        self._timers = new_timers()
        self._timers.start()

    def serve(self, repositories: Iterable[Repository]) -> None:
        """Serve these and no others: what is new begins, what is gone ends, the rest goes on undisturbed."""
        wanted = {one.name: one for one in repositories}
        with self._lock:
            if self._stopped.is_set():
                return
            gone = {name: one for name, one in self._members.items() if one.repository != wanted.get(name)}
            for name, member in gone.items():
                LOG.info("%s: no longer served", name)
                member.stop()
                del self._members[name]
            self._leaving = [one for one in (*self._leaving, *gone.values()) if one.is_alive()]
            for name, repository in wanted.items():
                if name not in self._members:
                    self._members[name] = Member(repository, self._timers, self._jitter)
                    self._members[name].start()

    def wake(self, name: str, *, code: bool = False) -> None:
        """Something may have changed in this repository alone; `code`: in its code."""
        with self._lock:
            member = self._members.get(name)
        if member:
            member.wake(code=code)

    def retry(self) -> None:
        """Try at once what has failed and waits."""
        for member in self._served():
            member.retry()

    def summary(self) -> tuple[Standing, ...]:
        """How it is with each, by name."""
        return tuple(sorted((one.standing() for one in self._served()), key=lambda one: one.name))

    def run(self, seconds: float = END_SECONDS) -> tuple[str, ...]:
        """Wait until stopped, then for all to end, so long in all. The names of those that haven't ended by then."""
        self._stopped.wait()
        end = time.monotonic() + seconds
        members = (*self._served(), *self._leaving)
        for member in members:
            member.stop()
        for member in members:
            member.join(max(0.0, end - time.monotonic()))
        self._timers.shutdown(wait=False)
        return tuple(sorted(one.repository.name for one in members if one.is_alive()))

    def stop(self) -> None:
        """Have `run` end."""
        with self._lock:
            self._stopped.set()

    def _served(self) -> tuple["Member", ...]:
        with self._lock:
            return tuple(self._members.values())


class Member:
    """One repository that is served, whatever happens to it, in a thread of its own."""

    def __init__(self, repository: Repository, timers: BackgroundScheduler, jitter: Callable[[], float]) -> None:
        """Nothing happens yet."""
        self.repository = repository
        self._timers = timers
        self._jitter = jitter
        self._lock = threading.Lock()
        self._awake = threading.Event()
        self._stopped = False
        self._daemon: Daemon | None = None
        self._backoff = Backoff()
        self._failure: str | None = "it was not looked at yet"
        self._failures = 0
        self._trouble = Trouble()
        self._thread = threading.Thread(target=self._run, name=repository.name, daemon=True)
        self.start, self.join, self.is_alive = self._thread.start, self._thread.join, self._thread.is_alive

    def stop(self) -> None:
        """Have its thread end, after what it is doing."""
        with self._lock:
            self._stopped = True
            daemon = self._daemon
        self._awake.set()
        if daemon:
            daemon.stop()

    def wake(self, *, code: bool) -> None:
        """Something may have changed. What has failed waits nevertheless."""
        daemon = self._daemon
        if daemon:
            daemon.wake_code() if code else daemon.wake()
        elif not self._backoff.failures:
            self._awake.set()

    def retry(self) -> None:
        """Wait no longer."""
        daemon = self._daemon
        if daemon:
            daemon.retry()
        self._backoff = Backoff()
        self._awake.set()

    def standing(self) -> Standing:
        """How it is."""
        daemon = self._daemon
        done = daemon.progress() if daemon else Progress(failure=self._failure)
        return Standing(
            name=self.repository.name,
            url=self.repository.url,
            polled_at=done.polled_at,
            failure=done.failure,
            turns=done.turns,
            pushes=done.pushes,
            failures=done.failures + self._failures,
            runs=done.runs,
        )

    def _run(self) -> None:
        naming.REPOSITORY.set(self.repository.name)
        while not self._stopped:
            self._awake.clear()
            seconds = self._served()
            if not self._stopped:
                self._awake.wait(seconds)

    def _served(self) -> float:
        """Serve it for as long as that goes well; then, in how many seconds to begin again."""
        try:
            daemon = self.repository.open(self._timers)
            if daemon is None:
                return self._not_yet()
            self._well()
            self._serve(daemon)
        except DstackError as error:
            return self._failed(error)
        except Exception as error:
            LOG.exception("it can't be served: a mistake of ours")
            return self._failed(error)
        return CRASH_SECONDS

    def _serve(self, daemon: Daemon) -> None:
        with self._lock:
            if self._stopped:
                return
            self._daemon = daemon
        try:
            daemon.run()
        finally:
            done = daemon.progress()
            self._failures += done.failures
            if done.polled_at is not None:
                self._backoff = Backoff()
            self._daemon, self._failure = None, "it is about to be served again"

    def _well(self) -> None:
        self._failure = None
        self._trouble.over("open", "it can be served now")
        LOG.info("served: state remote %s", self.repository.url)

    def _not_yet(self) -> float:
        self._backoff, self._failure = Backoff(), NOT_YET
        self._trouble.tell("open", NOT_YET)
        return INIT_SECONDS * (0.75 + self._jitter() / 2)

    def _failed(self, error: Exception) -> float:
        now = time.monotonic()
        self._failures += 1
        self._backoff = self._backoff.after_outage(now, self._jitter(), error, LONGEST_SECONDS)
        self._failure = str(error) or type(error).__name__
        self._trouble.tell("open", f"{self._failure}; trying again")
        return self._backoff.until - now
