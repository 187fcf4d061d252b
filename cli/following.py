"""Follows one run: its state and its logs as they come, until it has ended."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cli.lines import JobLine, RunLine
from cli.log_text import LogPrinter
from cli.reading import Reader
from cli.session import Seen
from cli.terminal import tell
from dstack.model import refs
from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.refs import RunKey
from dstack.model.status import Status
from dstack.store.lines import Lines
from dstack.store.log_reader import LogReader
from dstack.store.store import Store

LOOK_SECONDS = 0.02
POLL_SECONDS = 3.0
AWAY_SECONDS = 1.0
LOGS_SECONDS = 0.05

Watcher = Callable[[RunLine], None]


def updates(reader: Reader, name: str) -> Iterator[tuple[Seen, RunLine] | None]:
    """The run whenever it has changed, and None in between, often. Ends behind the run's end. Raises Failed if it goes.

    Looks at the files of a local remote first: a fetch only follows where one has changed, or after some seconds.
    """
    stamp, last, polled = None, None, 0.0
    while last is None or not last.finished:
        now = _stamp(reader.session.remote.path, last)
        if stamp == now and time.monotonic() < polled + POLL_SECONDS:
            yield None
            time.sleep(LOOK_SECONDS)
            continue
        seen = _patient_poll(reader)
        stamp, polled = now, time.monotonic()
        if refs.run_branch(name) not in seen.found:
            msg = f"the run {name} is gone from the state remote: its branch was deleted, or it was archived"
            raise Failed(msg)
        line = reader.line(seen, name)
        if line != last:
            last = line
            yield seen, line


def _patient_poll(reader: Reader) -> Seen:
    """A remote that is away comes back: say so once, and wait."""
    told = False
    while True:
        try:
            return reader.session.poll()
        except Unavailable as error:
            if not told:
                tell(f"{error}; waiting for it")
            told = True
            time.sleep(error.retry_after or AWAY_SECONDS)


def _stamp(remote: Path, line: RunLine | None) -> object:
    """What changes when refs of this run change in a repository on this machine."""
    if line is None:
        return None
    folder = remote / refs.note(RunKey.of(line.run, line.root), "x")
    files = [remote / "packed-refs", remote / refs.run_branch(line.run)]
    with suppress(OSError):
        files += sorted(folder.parent.iterdir())
    return tuple(_mark(path) for path in files)


def _mark(path: Path) -> tuple[str, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 (called fifty times a second)
    except OSError:
        return (path.name, 0, 0)
    return (path.name, found.st_mtime_ns, found.st_ino)


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


def follow(reader: Reader, name: str, tails: Tails, watch: Watcher) -> RunLine:
    """Print logs until the run has ended; `watch` is told of every change of its state. The result is its end."""
    last: RunLine | None = None
    for update in updates(reader, name):
        if update:
            seen, last = update
            if last.store:
                tails.take(last, seen.store(last.store))
            tails.show(at_once=True)
            watch(last)
        tails.show()
    tails.drain()
    if last is None:
        msg = f"the run {name} could not be followed"
        raise Failed(msg)
    return last
