"""The logs of a run's attempts while they grow: each is read on from where it was, and what is new is printed."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.lines import JobLine, RunLine
from cli.log_text import LogPrinter
from cli.terminal import tell
from dstack import interrupts
from dstack.model.errors import DstackError, Unavailable
from dstack.model.status import Status
from dstack.store import parallel
from dstack.store.chunk import Record
from dstack.store.lines import Line, Lines
from dstack.store.log_reader import LogReader
from dstack.store.store import Store

AWAY_SECONDS = 0.5
LOGS_SECONDS = 0.05
# In a store elsewhere every look is a request of each log that is open: so many seconds between two, and a little more
# for each log beyond a few. `width` logs are asked for at once.
AWAY_LOGS_SECONDS = 0.4
FEW_LOGS = 32
DRAIN_SECONDS = 60.0


class Before:
    """What a log held when its reader came: the last `count` lines of it that the printer would print."""

    def __init__(self, printer: LogPrinter, count: int) -> None:
        """Nothing has been read yet."""
        self._printer, self._lines, self._seen = printer, deque[tuple[int, Line]](maxlen=count), 0

    def take(self, lines: Iterable[Line]) -> None:
        """They come next."""
        for line in lines:
            if self._printer.shows(line):
                self._lines.append((self._seen, line))
            self._seen += 1

    def show(self, job: JobLine) -> None:
        """Print what is left; what comes from now on is printed as it comes."""
        self._printer.numbered(job, self._lines)
        self._printer.passed(job, self._seen)


@dataclass(slots=True, kw_only=True)
class Tail:
    """The log of one attempt while it grows."""

    job: JobLine
    reader: LogReader
    before: "Before | None" = None
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
    """The logs of all attempts of a run that were seen. `only`: of one job alone. `skip`: logs shown before.

    `last`: of the logs that are there at first, so many lines each.
    """

    printer: LogPrinter
    only: str | None = None
    skip: frozenset[str] = frozenset()
    last: int | None = None
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
        self.last = None

    def open(self, job: JobLine, key: str, store: Store) -> None:
        """Follow a log, if it is new."""
        if key not in self._tails and key not in self.skip:
            before = None if self.last is None else Before(self.printer, self.last)
            self._tails[key] = Tail(job=job, reader=LogReader(store, key), before=before)
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
            self._caught_up(tail)
            self.printer.lines(tail.job, tail.lines.rest())

    def _drained(self, tail: Tail) -> bool:
        """Print some; whether there was anything. A store that is away is waited for, but not for ever."""
        end = time.monotonic() + DRAIN_SECONDS
        tail.look(whole=True)
        while isinstance(tail.found, Unavailable) and time.monotonic() < end:
            self._print(tail)
            interrupts.sleep(AWAY_SECONDS)
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
        if tail.before is None:
            self.printer.lines(tail.job, tail.lines.feed(tail.found))
        else:
            tail.before.take(tail.lines.feed(tail.found))
            if not tail.found or tail.reader.closed:
                self._caught_up(tail)
        return bool(tail.found)

    @staticmethod
    def _caught_up(tail: Tail) -> None:
        if tail.before is not None:
            tail.before.show(tail.job)
            tail.before = None
