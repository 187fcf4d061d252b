"""Follows one run: its state and its logs as they come, until it has ended."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
from dstack.store.lines import Lines
from dstack.store.log_reader import LogReader
from dstack.store.store import Store

LOOK_SECONDS = 0.01
AWAY_SECONDS = 0.5
LONGEST_AWAY_SECONDS = 8.0
LOGS_SECONDS = 0.05

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


@dataclass(slots=True, kw_only=True)
class Tails:
    """The logs of all attempts of a run that were seen. `only`: of one job alone."""

    printer: LogPrinter
    only: str | None = None
    _tails: dict[str, Tail] = field(default_factory=dict)
    _due: float = 0.0
    _away: bool = False

    def take(self, line: RunLine, store: Store) -> None:
        """Open the logs that have come into being."""
        for job in line.jobs:
            if (
                job.logs
                and job.logs not in self._tails
                and self.only in (None, job.job)
                and job.status is not Status.QUEUED
            ):
                self._tails[job.logs] = Tail(job=job, reader=LogReader(store, job.logs))

    def show(self, *, at_once: bool = False) -> None:
        """Print what is new, if it is time to look."""
        if time.monotonic() < self._due and not at_once:
            return
        open_tails = [tail for tail in self._tails.values() if not tail.reader.closed]
        for tail in open_tails:
            self._show(tail, whole=False)
        self._due = time.monotonic() + LOGS_SECONDS * (1 + len(open_tails) // 8)

    def drain(self) -> None:
        """The run has ended: print what is left."""
        for tail in self._tails.values():
            while not tail.reader.closed and self._show(tail, whole=True):
                pass
            self.printer.lines(tail.job, tail.lines.rest())

    def _show(self, tail: Tail, *, whole: bool) -> bool:
        """Whether there was anything."""
        try:
            batch = tail.reader.poll(whole=whole)
        except DstackError as error:
            if not self._away:
                tell(f"the log can't be read: {error}")
            self._away = True
            return False
        self._away = False
        self.printer.lines(tail.job, tail.lines.feed(batch.records))
        return bool(batch.records)


def follow(reader: Reader, run: RunKey, tails: Tails, watch: Watcher, *, new: bool = False) -> RunLine:
    """Print logs until the run has ended; `watch` is told of every change. The result is its end."""
    last: RunLine | None = None
    for update in updates(reader, run, new=new):
        if update:
            seen, last = update
            if last.store:
                tails.take(last, seen.store(last.store))
            tails.show(at_once=True)
            watch(last)
        tails.show()
    tails.drain()
    if last is None:
        msg = f"the run {run.name} could not be followed"
        raise Failed(msg)
    return last
