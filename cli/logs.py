"""`dstack logs`: the output of a run or job, what there is or as it comes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from cli.archived import find
from cli.completing import complete_job
from cli.following import follow
from cli.lines import JobLine, RunLine
from cli.log_text import LogPrinter, prefixes
from cli.pick import Picked, readable
from cli.reading import Reader
from cli.session import Seen, open_session
from cli.summaries import load_runs
from cli.tails import Tails
from cli.terminal import tell
from dstack.model import keys
from dstack.model.errors import Invalid
from dstack.model.refs import RunKey
from dstack.store import lines as log_lines
from dstack.store.lines import Line
from dstack.store.log_reader import LogReader
from dstack.store.store import Store

EXAMPLE = """\b
Examples:
  dstack logs fast-rabbit-1           # all its jobs, each line with its job
  dstack logs 3f2a -f                 # one job, by the beginning of its id, as it comes
  dstack logs fast-rabbit-1 -n 20 --timestamps
  dstack logs fast-rabbit-1 --since 5m"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d{1,9})([smhd])")


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="RUN|JOB", shell_complete=complete_job)
@click.option("-f", "--follow", "following", is_flag=True, help="Go on as more comes, until the run ends.")
@click.option("-s", "--since", metavar="5m|TIME", help="Only lines of the last 5m, or since an ISO 8601 time.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each job.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time (UTC).")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Attempt N; else the last one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path,
    *,
    name: str,
    following: bool,
    since: str | None,
    tail: int | None,
    timestamps: bool,
    attempt: int | None,
    as_json: bool,
) -> None:
    """Print the log of a job, or of all jobs of a run."""
    if following and attempt:
        msg = "--follow shows the last attempt of each job, and what comes: leave out --attempt"
        raise click.UsageError(msg)
    moment = since_moment(since, datetime.now(UTC)) if since else None
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    picked = readable(find(reader.session, seen, load_runs(reader.session, seen), name), reader.session.remote.name)
    titles = {} if picked.job else prefixes(picked.run.jobs)
    printer = LogPrinter(prefixes=titles, timestamps=timestamps, as_json=as_json, since=moment)
    if following and not picked.run.finished:
        only = picked.job.job if picked.job else None
        follow(reader, picked.run.key, Tails(printer=printer, only=only, last=tail), lambda _: None)
        return
    if not any(job.logs for job in picked.jobs):
        tell(f"There is no log yet: {picked.name} has not started.")
        return
    for job in with_attempt(picked, attempt):
        printer.numbered(job, log_lines.chosen(all_lines(_store(seen, picked.run), job), since=moment, last=tail))


def since_moment(text: str, now: datetime) -> datetime:
    """The time that `5m` or an ISO 8601 text means. Raises Invalid."""
    try:
        if span := _SPAN.fullmatch(text):
            return now - timedelta(seconds=int(span[1]) * _UNITS[span[2]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        msg = f"--since {text!r} is neither a span (90s, 5m, 2h, 3d) nor a time (2026-01-31T12:00:00Z)"
        raise Invalid(msg) from error
    return moment if moment.tzinfo else moment.astimezone()


def with_attempt(picked: Picked, attempt: int | None) -> list[JobLine]:
    """The jobs that have a log, with the attempt asked for. Raises Invalid where none has come so far."""
    jobs = [job for job in picked.jobs if job.logs]
    if attempt is None:
        return jobs
    tried = [job for job in jobs if job.attempt and job.attempt >= attempt]
    if not tried:
        most = max((job.attempt or 0 for job in picked.jobs), default=0)
        msg = f"{picked.name} has no attempt {attempt}: the last one is {most}"
        raise Invalid(msg)
    key = str(RunKey.of(picked.run.run, picked.run.root))
    return [msgspec.structs.replace(job, attempt=attempt, logs=keys.log(key, job.job, attempt)) for job in tried]


def _store(seen: Seen, run: RunLine) -> Store:
    return seen.store(run.store)


def all_lines(store: Store, job: JobLine) -> Iterator[Line]:
    """The log of an attempt, as it is now. Raises as a store."""
    reader, together = LogReader(store, job.logs or ""), log_lines.Lines()
    while True:
        batch = reader.poll(whole=True)
        yield from together.feed(batch.records)
        if batch.closed or not batch.records:
            break
    yield from together.rest()
