"""Lines of logs for people and programs: with the job before them, with times, in colour, or as JSON."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import click
import msgspec

from cli.lines import JobLine
from cli.terminal import COLOURS, clean, in_colour
from dstack.store.chunk import STDERR, STDOUT
from dstack.store.lines import Line

STREAMS = {STDOUT: "stdout", STDERR: "stderr"}


class JsonLine(msgspec.Struct, frozen=True, kw_only=True):
    """`logs --json`, one a line; `seq` counts the lines of an attempt from 0."""

    job: str
    attempt: int
    seq: int
    at: datetime
    stream: str
    text: str


@dataclass(slots=True, kw_only=True)
class LogPrinter:
    """Prints to standard output, as bytes: a log need not be text. `since`: no lines of before."""

    prefixes: Mapping[str, str] = field(default_factory=dict)
    timestamps: bool = False
    as_json: bool = False
    since: datetime | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    def lines(self, job: JobLine, lines: Iterable[Line]) -> None:
        """Print these lines of a job's attempt, which follow those of the last call."""
        self.numbered(job, self._counted(job, lines))

    def numbered(self, job: JobLine, lines: Iterable[tuple[int, Line]]) -> None:
        """Print these lines of a job's attempt, each with its number in it."""
        sys.stdout.flush()
        out = sys.stdout.buffer
        for seq, line in lines:
            if self.shows(line):
                out.write(self._format(job, seq, line))
        out.flush()

    def shows(self, line: Line) -> bool:
        """Whether it is recent enough."""
        return self.since is None or line.at >= self.since.timestamp()

    def passed(self, job: JobLine, count: int) -> None:
        """So many lines of the attempt have come already, whether they were printed or not."""
        self._counts[job.logs or job.job] = count

    def _counted(self, job: JobLine, lines: Iterable[Line]) -> Iterator[tuple[int, Line]]:
        key = job.logs or job.job
        for seq, line in enumerate(lines, self._counts.get(key, 0)):
            self._counts[key] = seq + 1
            yield seq, line

    def _format(self, job: JobLine, seq: int, line: Line) -> bytes:
        if self.as_json:
            return _json(job, seq, line)
        stamp = f"{line.time.isoformat(timespec='milliseconds')} ".encode() if self.timestamps else b""
        return self.prefixes.get(job.job, "").encode() + stamp + line.data + b"\n"


def _json(job: JobLine, seq: int, line: Line) -> bytes:
    stream = STREAMS.get(line.stream, "dstack")
    value = JsonLine(job=job.job, attempt=job.attempt or 0, seq=seq, at=line.time, stream=stream, text=line.text)
    return msgspec.json.encode(value) + b"\n"


def prefixes(jobs: Sequence[JobLine]) -> dict[str, str]:
    """By job, `train | ` as wide as the widest."""
    titles = {job.job: clean(job.title) for job in jobs}
    wide = max((len(title) for title in titles.values()), default=0)
    return {job: _coloured(f"{title.ljust(wide)} | ", number) for number, (job, title) in enumerate(titles.items())}


def _coloured(text: str, number: int) -> str:
    return click.style(text, fg=COLOURS[number % len(COLOURS)]) if in_colour() else text
