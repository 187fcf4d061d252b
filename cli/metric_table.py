"""The table of `dstack metrics`: which columns tell the jobs apart, in which order the rows stand. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from cli.measures import Measure
from cli.status_table import job_text
from cli.table import Column
from dstack.model.errors import Invalid
from dstack.model.metrics import Measured, differing, names_of, number_text, order_key
from dstack.model.problems import nearest, shown
from dstack.model.status import Status

_METRIC = "metrics."


class MetricsLine(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics --json`, one a job. A number that is none (NaN) is null. `problems` are sentences."""

    run: str
    job: str
    workflow: str
    matrix: dict[str, str]
    variables: dict[str, str]
    status: Status
    finished_at: datetime | None
    metrics: dict[str, Measured | None]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Titles and cells as text, and the jobs behind the rows."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def line_of(one: Measure) -> MetricsLine:
    """The job for programs."""
    return MetricsLine(
        run=one.run.run,
        job=one.line.job,
        workflow=one.line.workflow,
        matrix=one.line.matrix,
        variables=one.line.variables,
        status=one.line.status,
        finished_at=one.line.finished_at,
        metrics=dict(one.values),
        problems=one.problems,
    )


def ordered(lines: Sequence[MetricsLine], sort: str, *, reverse: bool = False) -> list[MetricsLine]:
    """By a metric or variable (`-name`: the largest first); what hasn't got it stands last. Raises Invalid."""
    metrics, variables = names_of(line.metrics for line in lines), names_of(line.variables for line in lines)
    known = {f"{_METRIC}{name}": name for name in metrics} | {name: name for name in metrics}
    descending = sort not in known and sort not in variables and sort.startswith("-")
    name = sort.removeprefix("-") if descending else sort
    if name not in known and name not in variables:
        hint = nearest(name, [*metrics, *variables])
        have = hint or f": there are {', '.join([*metrics, *variables][:10]) or 'none at all'}"
        msg = f"there is no metric or variable {shown(name)} to sort by{have}"
        raise Invalid(msg)

    def key(line: MetricsLine) -> tuple[int, float, str]:
        value = line.metrics.get(known[name]) if name in known else line.variables.get(name)
        return order_key(value, descending=descending is not reverse)

    return sorted(lines, key=key)


def table_of(lines: Sequence[MetricsLine], *, sort: str | None = None, whole: bool = False) -> Table:
    """Variables that differ, and metrics; run and workflow where there are several. `whole`: all that there is."""
    by = (sort or "").removeprefix("-").removeprefix(_METRIC)
    variables = names_of(line.variables for line in lines) if whole else differing([line.variables for line in lines])
    metrics = names_of(line.metrics for line in lines)
    main = by if by in metrics or by in variables else next(iter(metrics), "")
    unfinished = whole or any(line.status is not Status.DONE for line in lines)
    troubled = whole or any(line.problems for line in lines)
    runs = whole or len({line.run for line in lines}) > 1
    workflows = whole or len({line.workflow for line in lines}) > 1
    fixed = {title: title.lower() if whole else title for title in ("RUN", "JOB", "WORKFLOW", "STATUS", "PROBLEM")}
    columns = [
        *([Column(title=fixed["RUN"], least=16, rank=5)] if runs else []),
        Column(title=fixed["JOB"], least=12),
        *([Column(title=fixed["WORKFLOW"], least=8, rank=7)] if workflows else []),
        # The last metrics go first where there is no room; one stays: that which is sorted by, else the first.
        *(Column(title=_title(name, fixed), least=8, rank=9 if name == by else 6) for name in variables),
        *(
            Column(
                title=_metric_title(name, (*variables, *fixed.values())), least=8, rank=9 if name == main else -place
            )
            for place, name in enumerate(metrics)
        ),
        *([Column(title=fixed["STATUS"], least=8, rank=8)] if unfinished else []),
        *([Column(title=fixed["PROBLEM"], least=20, rank=8)] if troubled else []),
    ]
    rows = (
        (
            *((line.run,) if runs else ()),
            line.job,
            *((line.workflow,) if workflows else ()),
            *(line.variables.get(name, "") for name in variables),
            *(_cell(line.metrics.get(name), whole=whole) for name in metrics),
            *((str(line.status),) if unfinished else ()),
            *(("; ".join(line.problems),) if troubled else ()),
        )
        for line in lines
    )
    return Table(columns=tuple(columns), rows=tuple(rows))


def waiting_text(jobs: Sequence[Measure]) -> str:
    """What is said of jobs that have no values yet; empty where all have ended."""
    waiting = [one for one in jobs if not one.line.status.finished]
    if not waiting:
        return ""
    first = waiting[0]
    return f"{len(waiting)} of {len(jobs)} jobs have not ended yet ({first.line.title} is {job_text(first.line)})"


def _title(name: str, fixed: Mapping[str, str]) -> str:
    return f"variables.{name}" if name in fixed.values() else name


def _metric_title(name: str, taken: Sequence[str]) -> str:
    return f"{_METRIC}{name}" if name in taken else name


def _cell(value: Measured | None, *, whole: bool) -> str:
    if value is None:
        return ""
    return str(value) if whole else number_text(value)
