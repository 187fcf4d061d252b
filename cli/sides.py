"""The two sides of `dstack diff`: a run, one job of a run, or the work tree as a run made now would be."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cli.archived import find
from cli.lines import RunLine
from cli.measures import jobs_of, measure, view_of
from cli.pick import readable
from cli.preparing import Order, prepare
from cli.reading import Reader
from cli.run_options import RunOptions
from cli.session import Seen
from dstack.ledger.codediff import bring
from dstack.model.comparing import Compared, Comparison, compare_jobs, compare_runs
from dstack.model.errors import Invalid

WORK_TREE = "your work tree"


class SideLine(msgspec.Struct, frozen=True, kw_only=True):
    """A side in `diff --json`. Of the work tree, `run` and `root` are null; `job` only where one was named."""

    run: str | None
    root: str | None
    job: str | None
    workflow: str
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """`title` for people. `single`: one job was named."""

    title: str
    line: SideLine
    jobs: tuple[Compared, ...]
    single: bool = False


def run_side(reader: Reader, seen: Seen, runs: Sequence[RunLine], name: str) -> Side:
    """The run or job of this name, its metrics read and its code fetched. Raises Invalid, Failed, Unavailable."""
    picked = readable(find(reader.session, seen, runs, name), reader.session.remote.name)
    view = view_of(reader, seen, picked)
    jobs = jobs_of(view, picked)
    if any(one.job.metrics and one.line.artifacts for one in jobs):
        measure(seen.store(picked.run.store), jobs)
    snapshot = view.spec.code.snapshot
    bring(reader.session.cache, reader.session.code, view.key, snapshot, archived=picked.run.archived)
    job = picked.job
    return Side(
        title=f"{picked.run.run} {job.title} ({job.job})" if job else picked.run.run,
        line=SideLine(
            run=picked.run.run,
            root=view.root,
            job=job.job if job else None,
            workflow=job.workflow if job else view.spec.workflow,
            snapshot=snapshot,
        ),
        jobs=tuple(Compared(job=one.job, metrics=one.values) for one in jobs),
        single=job is not None,
    )


def work_tree_side(reader: Reader, seen: Seen, workflow: str) -> Side:
    """What `dstack run WORKFLOW` would submit now. Nothing is pushed. Raises Invalid as it would."""
    order = Order(workflow=workflow, overrides=(), options=RunOptions())
    prepared = prepare(reader.session, order, seen)
    line = SideLine(run=None, root=None, job=None, workflow=workflow, snapshot=prepared.snapshot.tree)
    return Side(title=WORK_TREE, line=line, jobs=tuple(Compared(job=one.job) for one in prepared.plan().jobs))


def compared(before: Side, after: Side) -> Comparison:
    """Job with job where both sides are one; else by workflow and matrix. Raises Invalid where nothing corresponds."""
    if before.single and after.single:
        return compare_jobs(before.jobs[0], after.jobs[0])
    if before.single or after.single:
        (one,) = before.jobs if before.single else after.jobs
        other = after if before.single else before
        match = next((job for job in other.jobs if job.place == one.place), None)
        if match is None:
            msg = f"{other.title} has no job {one.job.title} to compare with: name two jobs"
            raise Invalid(msg)
        return compare_jobs(one, match) if before.single else compare_jobs(match, one)
    return compare_runs(before.jobs, after.jobs)
