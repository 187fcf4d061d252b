"""Reads the metrics of jobs out of the store: only the files that their workflow names, several jobs at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.archived import with_archived
from cli.lines import JobLine, RunLine, run_line
from cli.pick import Picked
from cli.reading import Reader
from cli.session import Seen
from dstack.model.errors import Invalid
from dstack.model.job import Job
from dstack.model.metrics import Measured
from dstack.model.world import RunView
from dstack.store import parallel
from dstack.store.measuring import measured
from dstack.store.store import Store


@dataclass(slots=True, kw_only=True)
class Measure:
    """A job, and what its files say. `problems`: sentences about files that could not be read."""

    run: RunLine
    line: JobLine
    job: Job
    values: dict[str, Measured] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def view_of(reader: Reader, seen: Seen, picked: Picked) -> RunView:
    """What was picked, with its plan. Raises Invalid where it has none."""
    if picked.run.archived:
        seen = with_archived(reader.session, seen, picked.run.key) or seen
    view = reader.view(seen, picked.run.run)
    if not isinstance(view, RunView) or view.plan is None:
        why = view.problem if isinstance(view, RunView) else "it can't be read"
        msg = f"{picked.run.run} has no jobs: {why}"
        raise Invalid(msg)
    return view


def jobs_of(view: RunView, picked: Picked) -> list[Measure]:
    """The jobs that were picked, in the order of the plan, as yet without values."""
    line = run_line(view)
    specs = {planned.id: planned.job for planned in view.plan.jobs} if view.plan else {}
    wanted = {job.job for job in picked.jobs}
    return [Measure(run=line, line=job, job=specs[job.job]) for job in line.jobs if job.job in wanted]


def measure(store: Store, jobs: Sequence[Measure]) -> None:
    """Read the files of all of them. Raises Unavailable, Failed where the store as a whole can't be read."""
    with_files = [one for one in jobs if one.job.metrics]
    parallel.each(with_files, lambda one: _measure(store, one), width=min(store.width, max(1, len(with_files))))


def _measure(store: Store, one: Measure) -> None:
    if not one.line.artifacts:
        return
    digest = one.line.artifacts.rpartition("/")[2]
    one.values, one.problems = measured(store, digest, one.job.working_dir, one.job.metrics)
