"""Follows one run: its state and its logs as they come, until it has ended."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cli.attention import NEW_SECONDS, Attention
from cli.lines import JobLine, RunLine
from cli.log_text import LogPrinter
from cli.marks import AWAY_POLL_SECONDS, POLL_SECONDS, Marks
from cli.reading import Reader
from cli.session import Seen
from cli.terminal import tell
from dstack import interrupts
from dstack.model import refs
from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.refs import RunKey
from dstack.model.status import Status
from dstack.store import parallel
from dstack.store.chunk import Record
from dstack.store.lines import Lines
from dstack.store.log_reader import LogReader
from dstack.store.store import Store

LOOK_SECONDS = 0.01
AWAY_SECONDS = 0.5
LONGEST_AWAY_SECONDS = 8.0
LOGS_SECONDS = 0.05
# In a store elsewhere every look is a request of each log that is open: so many seconds between two, and a little more
# for each log beyond a few. `width` logs are asked for at once.
AWAY_LOGS_SECONDS = 0.4
FEW_LOGS = 8
DRAIN_SECONDS = 60.0

Watcher = Callable[[RunLine], None]


def updates(reader: Reader, run: RunKey, *, new: bool = False) -> Iterator[tuple[Seen, RunLine] | None]:
    """The run whenever it has changed, and None in between, often. Ends behind the run's end. Raises Failed if it goes.

    Looks at the files of a local remote first: a fetch only follows where one has changed, or after some seconds.
    `new`: the run was made just now, by this process.
    """
    remote = reader.session.remote
    marks = Marks(remote=remote.path, key=run, poll=AWAY_POLL_SECONDS.get(remote.reach, POLL_SECONDS))
    if new:
        marks.assume_new(time.monotonic())
    last: RunLine | None = None
    while last is None or not last.finished:
        interrupts.check()
        if not marks.due(time.monotonic()):
            yield None
            time.sleep(LOOK_SECONDS)
            continue
        marks.taken(time.monotonic())
        seen = _patient_poll(reader)
        if refs.run_branch(run.name) not in seen.found:
            msg = f"the run {run.name} is gone from the state remote: its branch was deleted, or it was archived"
            raise Failed(msg)
        line = reader.line(seen, run.name)
        if line != last:
            last = line
            yield seen, line


def _patient_poll(reader: Reader) -> Seen:
    """A remote that is away comes back: say so once, and wait."""
    told, tries = False, 0
    while True:
        try:
            return reader.session.poll()
        except Unavailable as error:
            if not told:
                tell(f"{error}; waiting for it")
            told, tries = True, tries + 1
            longest = min(AWAY_SECONDS * 2.0 ** min(tries, 4), LONGEST_AWAY_SECONDS)
            _sleep(error.retry_after or longest * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)


def _sleep(seconds: float) -> None:
    """Interruptible."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interrupts.check()
        time.sleep(min(left, 0.2))


@dataclass(slots=True, kw_only=True)
class Tail:
    """The log of one attempt while it grows."""

    job: JobLine
    reader: LogReader
    lines: Lines = field(default_factory=Lines)
    found: tuple[Record, ...] | DstackError = ()

    def look(self, *, whole: bool = False) -> None:
        """Find what is new, or why it can't be had."""
        try:
            self.found = self.reader.poll(whole=whole).records
        except DstackError as error:
            self.found = error


@dataclass(slots=True, kw_only=True)
class Tails:
    """The logs of all attempts of a run that were seen. `only`: of one job alone. `skip`: logs shown before."""

    printer: LogPrinter
    only: str | None = None
    skip: frozenset[str] = frozenset()
    _tails: dict[str, Tail] = field(default_factory=dict)
    _due: float = 0.0
    _away: bool = False
    _pause: float = LOGS_SECONDS
    _width: int = 1

    def take(self, line: RunLine, store: Store) -> None:
        """Open the logs that have come into being."""
        for job in line.jobs:
            # What a reused job has said is history: `dstack logs` shows it.
            told = job.reused_from is not None or job.status is Status.QUEUED
            if job.logs and self.only in (None, job.job) and not told:
                self.open(job, job.logs, store)

    def open(self, job: JobLine, key: str, store: Store) -> None:
        """Follow a log, if it is new."""
        if key not in self._tails and key not in self.skip:
            self._tails[key] = Tail(job=job, reader=LogReader(store, key))
            self._pause = LOGS_SECONDS if store.url.startswith("file:") else AWAY_LOGS_SECONDS
            self._width = store.width

    def show(self, *, at_once: bool = False) -> None:
        """Print what is new, if it is time to look."""
        if time.monotonic() < self._due and not at_once:
            return
        begin = time.monotonic()
        open_tails = [tail for tail in self._tails.values() if not tail.reader.closed]
        for start in range(0, len(open_tails), self._width):
            some = open_tails[start : start + self._width]
            parallel.each(some, Tail.look, width=len(some))
            for tail in some:
                self._print(tail)
        self._due = max(time.monotonic(), begin + self._pause * (1 + len(open_tails) // FEW_LOGS))

    def drain(self) -> None:
        """The run has ended: print what is left."""
        for tail in self._tails.values():
            while not tail.reader.closed and self._drained(tail):
                pass
            self.printer.lines(tail.job, tail.lines.rest())

    def _drained(self, tail: Tail) -> bool:
        """Print some; whether there was anything. A store that is away is waited for, but not for ever."""
        end = time.monotonic() + DRAIN_SECONDS
        tail.look(whole=True)
        while isinstance(tail.found, Unavailable) and time.monotonic() < end:
            self._print(tail)
            _sleep(AWAY_SECONDS)
            tail.look(whole=True)
        if isinstance(tail.found, DstackError):
            tell(f"the rest of a log is not shown: {tail.found}; `dstack logs` shows it when the store is back")
            return False
        return self._print(tail)

    def _print(self, tail: Tail) -> bool:
        """Print what a look has found; whether there was anything."""
        if isinstance(tail.found, DstackError):
            if not self._away:
                tell(f"the log can't be read: {tail.found}; trying again")
            self._away = True
            return False
        self._away = False
        self.printer.lines(tail.job, tail.lines.feed(tail.found))
        return bool(tail.found)


def follow(reader: Reader, run: RunKey, tails: Tails, watch: Watcher, *, new: bool = False) -> RunLine:
    """Print logs until the run has ended; `watch` is told of every change. The result is its end."""
    last: RunLine | None = None
    attention = Attention(run, after=NEW_SECONDS if new else 0.0)
    try:
        for update in updates(reader, run, new=new):
            if update:
                seen, last = update
                if last.store:
                    store = seen.store(last.store)
                    attention.show(store)
                    tails.take(last, store)
                tails.show(at_once=True)
                watch(last)
            tails.show()
        tails.drain()
    finally:
        attention.end(over=last is not None and last.finished)
    if last is None:
        msg = f"the run {run.name} could not be followed"
        raise Failed(msg)
    return last
