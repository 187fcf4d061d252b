"""The cells of the status table: runs and jobs in words. Pure but for what the caller says of the terminal."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from cli.ago import ago
from cli.lines import JobLine, RunLine
from cli.table import Column
from dstack.model.job import Reason
from dstack.model.status import Status

COLUMNS = (
    Column(title="RUN", least=16),
    Column(title="TAG", rank=1),
    Column(title="JOB", least=12, rank=6),
    Column(title="WORKFLOW", least=14, rank=7),
    Column(title="VARIABLES", least=22, rank=5),
    Column(title="USER", least=6, rank=2),
    Column(title="VIA", least=10, rank=2),
    Column(title="SUBMITTED", least=10, rank=3),
    Column(title="RUNNER", least=8, rank=4),
    Column(title="STATUS", least=28),
)


def rows(lines: Sequence[RunLine], *, jobs: bool, repeat: bool, now: datetime) -> Iterator[list[str]]:
    """A row per job (or, without `jobs`, per run). `repeat`: write on each row what the rows of a run share."""
    for line in lines:
        if not jobs or not line.jobs:
            yield _run_row(line, now)
            continue
        for number, job in enumerate(line.jobs):
            row = _job_row(line, job, now)
            yield row if repeat or not number else ["", "", *row[2:5], "", "", "", *row[8:]]


def _run_row(line: RunLine, now: datetime) -> list[str]:
    count = len(line.jobs)
    jobs = f"{count} job{'' if count == 1 else 's'}" if count else ""
    values = " ".join(f"{name}={value}" for name, value in sorted(line.overrides.items()))
    return _row(line, now, (jobs, line.workflow, values), ("", run_text(line)))


def _job_row(line: RunLine, job: JobLine, now: datetime) -> list[str]:
    return _row(line, now, (job.job, job.workflow, variables_text(line, job)), (job.runner or "", job_text(job)))


def _row(line: RunLine, now: datetime, what: tuple[str, str, str], how: tuple[str, str]) -> list[str]:
    return [line.run, ",".join(line.tags), *what, line.user, via_text(line), ago(line.submitted_at, now), *how]


def via_text(line: RunLine) -> str:
    """`push main 3f2a9c1`, `tag v1 3f2a9c1`, `pull-request 12 3f2a9c1`, `schedule 2026-11-23T03:00Z`; empty: a user."""
    trigger = line.trigger
    if trigger is None:
        return ""
    if trigger.slot is not None:
        return f"{trigger.event} {trigger.slot[:16]}Z"
    what = trigger.ref.split("/", 2)[-1] if trigger.pull is None else str(trigger.pull)
    return f"{trigger.event} {what} {trigger.commit[:7]}{' (fork)' if trigger.fork else ''}"


def variables_text(line: RunLine, job: JobLine) -> str:
    """What tells this job from others: its matrix values, and what was given on the command line."""
    names = [name for name in sorted(job.variables) if name in job.matrix or name in line.overrides]
    return " ".join(f"{name}={job.variables[name]}" for name in names)


def job_text(job: JobLine) -> str:
    """`RUNNING`, `QUEUED: waits for …`, `FAILED: exit code 3`, `DONE, reused from …`, with warnings."""
    text = str(job.status)
    if why := why_text(job):
        text = f"{text}: {why}"
    elif job.reused_from:
        text = f"{text}, reused from {job.reused_from.run}"
    return f"{text} (warning: {'; '.join(job.warnings)})" if job.warnings else text


def why_text(job: JobLine) -> str:
    """What a job waits for, or why it ended as it did; empty where there is nothing to explain."""
    if not job.status.finished:
        return job.message
    if job.status is Status.DONE or job.reason is None:
        return ""
    if job.reason is Reason.EXIT and job.exit_code is not None:
        return f"exit code {job.exit_code}"
    if job.reason == job.status.lower():
        return job.message if job.message != job.reason else ""
    code = f", exit code {job.exit_code}" if job.exit_code else ""
    return f"{job.reason}{code}" + (f": {job.message}" if job.message and job.message != job.reason else "")


def run_text(line: RunLine) -> str:
    """The status of a run as a whole."""
    if line.status is None:
        return f"{'FOREIGN' if line.root else 'BROKEN'}: {line.problem}"
    if not line.status.finished:
        return f"{line.status}: {line.message}" if line.message else str(line.status)
    if line.status is Status.DONE or line.reason == line.status.lower():
        return str(line.status)
    return f"{line.status}: {line.message if line.reason in (None, Reason.INVALID) else line.reason}"
