"""The comment on a pull request: a table of jobs and metrics for each run, of bounded size."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

from dstack.forge.markdown import Markdown, shown
from dstack.model.lines import JobLine, RunLine
from dstack.model.metrics import Measured, names_of, number_text
from dstack.model.reports import PullReport
from dstack.model.status import Status
from dstack.model.verdicts import State, Told, verdict

# GitHub takes 65,536 characters.
MOST = 60_000
# So many rows a run, the failed first; fewer where the whole gets too long.
ROWS = (50, 20, 5, 0)
COLUMNS = 8

_WORDS = {
    State.PENDING: "waiting",
    State.RUNNING: "running",
    State.SUCCESS: "done",
    State.FAILURE: "failed",
    State.ERROR: "failed",
    State.CANCELLED: "stopped",
}
_ORDER = (Status.FAILED, Status.ABORTED, Status.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a job has measured; `broken`: not all of its files could be read."""

    values: Mapping[str, Measured]
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job in the table."""

    title: str
    state: str
    reason: str
    time: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A run in the comment."""

    workflow: str
    name: str
    word: str
    words: str
    link: Markdown
    metrics: tuple[str, ...]
    unshown: int
    timed: bool
    rows: tuple[Row, ...]
    more: int
    broken: bool


def marker(repository: str) -> str:
    """The first line of the comment, which nobody sees: it tells ours, and which dstack repository's it is."""
    return f"<!-- dstack:{hashlib.sha256(repository.encode()).hexdigest()[:16]} -->"


def shown_jobs(line: RunLine) -> list[JobLine]:
    """The jobs that have a row at most, in their order."""
    ranks = {status: rank for rank, status in enumerate(_ORDER)}
    return sorted(line.jobs, key=lambda job: ranks.get(job.status, len(ranks)))[: ROWS[0]]


def render(report: PullReport, measured: Mapping[str, Values], mark: str) -> str:
    """The Markdown. `measured` by job; `mark` is its `marker`."""
    text = ""
    for rows in ROWS:
        sections = tuple(_section(told, measured, rows) for told in report.runs)
        text = _template().render(
            marker=Markdown(mark), commit=report.commit[:12], summary=_summary(sections), runs=sections
        )
        if len(text) <= MOST:
            break
    return text[:MOST]


def _section(told: Told, measured: Mapping[str, Values], most: int) -> Section:
    line = told.line
    state, _ = verdict(told)
    known = {job.job: measured[job.job] for job in line.jobs if job.job in measured}
    metrics = names_of(known[job].values for job in known)
    jobs = shown_jobs(line)[:most]
    rows = tuple(_row(job, told, metrics[:COLUMNS], known.get(job.job)) for job in jobs)
    return Section(
        workflow=line.workflow,
        name=line.run,
        word=_WORDS[state],
        words=line.message if not line.jobs else "",
        link=Markdown(f" [More](<{told.link}>)" if told.link else ""),
        metrics=metrics[:COLUMNS],
        unshown=max(0, len(metrics) - COLUMNS),
        timed=any(row.time for row in rows),
        rows=rows,
        more=len(line.jobs) - len(jobs),
        broken=any(one.broken for one in known.values()),
    )


def _row(job: JobLine, told: Told, metrics: Sequence[str], measured: Values | None) -> Row:
    values = measured.values if measured else {}
    status = Status.RUNNING if job.job in told.running and not job.status.finished else job.status
    reused = job.reused_from is not None
    code = f"exit code {job.exit_code}" if job.exit_code else ""
    return Row(
        title=job.title,
        state=status.lower(),
        reason="reused" if reused else code or (str(job.reason) if job.status is Status.FAILED else ""),
        time="" if reused else _time(job),
        values=tuple(number_text(values[name]) if name in values else "" for name in metrics),
    )


def _time(job: JobLine) -> str:
    """Of what has ended alone: the comment would have to be written anew all the time."""
    if job.started_at is None or job.finished_at is None:
        return ""
    seconds = max(0, round((job.finished_at - job.started_at).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _summary(sections: Sequence[Section]) -> str:
    words = [section.word for section in sections]
    counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(_WORDS.values()) if word in words]
    return Markdown(", ".join(counts) or "nothing runs")


@cache
def _template() -> jinja2.Template:
    # Not HTML: every value goes through `shown`, which knows Markdown and HTML.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dstack.forge", ""),
        autoescape=False,  # noqa: S701
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("comment.md.j2")
