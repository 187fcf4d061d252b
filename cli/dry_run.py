"""`dstack run --dry-run`: what would be run and what reused, without pushing anything."""

from collections.abc import Mapping, Sequence

import msgspec

from cli.outlook import Outlook, outlooks, summary
from cli.preparing import Order, prepare
from cli.running import count_text
from cli.session import Session
from cli.table import Column, show_table
from cli.terminal import clean, say, tell
from dstack.model.plan import Plan, PlannedJob
from dstack.model.reuse import run_name

COLUMNS = (
    Column(title="WORKFLOW", least=8, rank=5),
    Column(title="VARIABLES", least=10, rank=3),
    Column(title="NEEDS", rank=1),
    Column(title="IMAGE", rank=2),
    Column(title="OUTLOOK", least=16, rank=4),
)
SHOWN_VALUES = 10


def dry_run(session: Session, order: Order) -> int:
    """Print a line for each workflow (with `--json`, all jobs); the exit code."""
    seen = session.poll()
    prepared = prepare(session, order, seen)
    plan = prepared.plan()
    found = dict(outlooks(session, seen, prepared.spec, plan)) if seen.repository else {}
    if order.options.as_json:
        jobs = [_object(planned, found.get(planned.id)) for planned in plan.jobs]
        say(msgspec.json.encode({"workflow": order.workflow, "jobs": jobs}).decode())
        return 0
    for warning in prepared.snapshot.warnings:
        tell(f"warning: {clean(warning)}")
    show_table(COLUMNS, [_row(jobs, found) for jobs in _by_workflow(plan).values()])
    tell(f"{count_text(plan)} would run on {prepared.snapshot.travels}{_reused(plan, found)}. Nothing was pushed.")
    return 0


def _reused(plan: Plan, found: Mapping[str, Outlook]) -> str:
    count = sum(outlook.answer is not None for outlook in found.values())
    least = "at least " if len(found) < len(plan.jobs) else ""
    return f"; {least}{count} of them would be reused" if count else ""


def _object(planned: PlannedJob, outlook: Outlook | None) -> dict[str, object]:
    """A job; `reused_from` what would likely stand in, `differs` from which earlier job and in what."""
    answer = outlook.answer if outlook else None
    origin = {"run": run_name(answer.run), "job": answer.job, "key": answer.run} if answer else None
    differs = list(outlook.differs) if outlook else []
    return {**msgspec.to_builtins(planned.job), "reused_from": origin, "differs": differs}


def _by_workflow(plan: Plan) -> dict[str, list[PlannedJob]]:
    found: dict[str, list[PlannedJob]] = {}
    for planned in plan.jobs:
        found.setdefault(planned.job.workflow, []).append(planned)
    return found


def _row(jobs: Sequence[PlannedJob], found: Mapping[str, Outlook]) -> list[str]:
    job = jobs[0].job
    title = job.title if len(jobs) == 1 else f"{job.workflow} ({len(jobs)} jobs)"
    values = " ".join(f"{name}={_values(name, jobs)}" for name in sorted(job.variables))
    needs = ", ".join(sorted({need.workflow for need in job.needs}))
    return [title, values, needs, job.image or "(process)", summary(found, [one.id for one in jobs])]


def _values(name: str, jobs: Sequence[PlannedJob]) -> str:
    values = list(dict.fromkeys(one.job.variables.get(name, "") for one in jobs))
    return ",".join(values[:SHOWN_VALUES]) + (",…" if len(values) > SHOWN_VALUES else "")
