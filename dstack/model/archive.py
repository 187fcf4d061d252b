"""Which finished runs leave for the archive, and what it keeps of each (DESIGN section 9). Pure."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from dstack.model import refs
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid
from dstack.model.lines import RunLine, run_line
from dstack.model.observation import Observation
from dstack.model.past import Past
from dstack.model.refs import RunKey
from dstack.model.retention import Retention
from dstack.model.reuse import Answer
from dstack.model.status import Status
from dstack.model.world import RunView, World

# One push takes about a second with so many; each run has some four refs, and one of them may have many more.
MOST_RUNS = 200
MOST_REFS = 2_000
MOST_JOBS = 20_000
LIMIT = 32 * 1024 * 1024
VERSION = 1

_PATH = re.compile(r"\d{4}/\d{2}/\d{2}", re.ASCII)
_OID = re.compile(r"[0-9a-f]{40}", re.ASCII)


class ArchivedRun(Value, frozen=True, kw_only=True):
    """The summary of a run. `tip`, `notes` (by writer) and `snapshot` are the ids its refs had.

    `keys`: what jobs that are DONE answer, by job: whoever has the same inputs may reuse them. `freed`: nothing keeps
    its artifacts in the store any more.
    """

    version: int = VERSION
    line: RunLine
    tip: str
    notes: dict[str, str]
    snapshot: str | None = None
    keys: dict[str, str] = {}
    freed: bool = False

    @property
    def key(self) -> RunKey:
        """The run's name and root."""
        return self.line.key

    @property
    def refs(self) -> dict[str, str]:
        """The refs it had, but for its snapshot: with them, it can be read like any other run."""
        notes = {refs.note(self.key, writer): oid for writer, oid in self.notes.items()}
        return {refs.run_branch(self.key.name): self.tip, **notes}

    @property
    def folder(self) -> str:
        """Where the archive has it: by the day it was submitted, in UTC."""
        at = self.line.submitted_at or datetime.fromtimestamp(0, UTC)
        return at.astimezone(UTC).strftime("%Y/%m/%d")


def leaving(world: World, seen: Observation, retention: Retention, now: datetime) -> tuple[ArchivedRun, ...]:
    """The next runs to be archived, oldest first; at most `MOST_RUNS`. `now` by the wall clock."""
    finished = sorted((run for run in world.runs if run.state.finished), key=_ended_at, reverse=True)
    surplus = finished[retention.runs :] if retention.runs is not None else []
    aged = [run for run in finished if retention.age is not None and now - _ended_at(run) > retention.age]
    due = {run.key: run for run in (*surplus, *aged)}
    return bounded(archived(run, seen) for run in sorted(due.values(), key=_ended_at) if may_leave(run, world, seen))


def may_leave(run: RunView, world: World, seen: Observation) -> bool:
    """Whether nothing more will happen to it: no job is assigned, nobody resumes it, its tag was given."""
    held = {attempt.run for one in world.assignments.values() for attempt in one.attempts.values()}
    ended = run.state.finished is not None and run.wanted.generation <= run.state.generation
    done = run.state.finished is not None and run.state.finished.status is Status.DONE
    waits = done and run.spec.options.tag is not None and run.state.tagged is None
    return ended and not waits and str(run.key) not in held and refs.run_branch(run.key.name) in seen.refs


def archived(run: RunView, seen: Observation) -> ArchivedRun:
    """The summary of a run, with the refs that it has now."""
    notes = {writer: note.oid for writer, note in seen.notes.get(run.key, {}).items()}
    line, past = run_line(run), Past([run])
    parts = {job.job: past.parts(str(run.key), job.job) for job in line.jobs}
    return ArchivedRun(
        line=line,
        tip=seen.refs[refs.run_branch(run.key.name)],
        notes=notes,
        keys={job: found.key for job, found in parts.items() if found},
    )


def bounded(runs: Iterable[ArchivedRun]) -> tuple[ArchivedRun, ...]:
    """As many of the first as go into one push."""
    taken: list[ArchivedRun] = []
    refs_taken = jobs = 0
    for run in runs:
        refs_taken += len(run.notes) + 2
        jobs += len(run.line.jobs)
        if taken and (len(taken) == MOST_RUNS or refs_taken > MOST_REFS or jobs > MOST_JOBS):
            break
        taken.append(run)
    return tuple(taken)


def to_bytes(run: ArchivedRun) -> bytes:
    """Its text in the archive: a line of JSON."""
    return encode(run) + b"\n"


def from_bytes(data: bytes) -> ArchivedRun:
    """Parse an untrusted summary. Raises Invalid."""
    run = decode(data, ArchivedRun, "the summary of an archived run", limit=LIMIT)
    if run.version > VERSION:
        msg = f"the archive was written by a later version of dstack (version {run.version}): upgrade dstack"
        raise Invalid(msg)
    ids = [run.line.root, run.tip, *run.notes.values(), *([run.snapshot] if run.snapshot else [])]
    names = refs.is_name(run.line.run) and all(refs.is_name(writer) for writer in run.notes)
    if not names or not all(_OID.fullmatch(oid) for oid in ids):
        msg = "the summary of an archived run has names or ids that are none"
        raise Invalid(msg)
    return run


def file_name(key: RunKey) -> str:
    """What a run's file is called."""
    return f"{key}.json"


def parse_path(path: str) -> RunKey | None:
    """The run of a path in the archive, `2026/11/23/fast-rabbit-1.5ab98f2089ae.json`; None where it is none."""
    folder, _, name = path.rpartition("/")
    if not _PATH.fullmatch(folder) or not name.endswith(".json"):
        return None
    try:
        return RunKey.from_text(name.removesuffix(".json"))
    except Invalid:
        return None


def newest(runs: Iterable[RunLine]) -> list[RunLine]:
    """Of several runs with one name, the one that was submitted last."""
    by_name: dict[str, RunLine] = {}
    for run in sorted(runs, key=_age):
        by_name[run.run] = run
    return list(by_name.values())


def _age(run: RunLine) -> tuple[float, float]:
    times = (run.submitted_at, run.finished_at)
    return times[0].timestamp() if times[0] else 0.0, times[1].timestamp() if times[1] else 0.0


def _ended_at(run: RunView) -> datetime:
    return run.state.finished.at if run.state.finished else run.spec.submitted_at


def answer(run: ArchivedRun, job_id: str) -> Answer | None:
    """What a job of it offers to those with the same key; None where it isn't DONE."""
    line = next((job for job in run.line.jobs if job.job == job_id), None)
    if line is None or line.status is not Status.DONE:
        return None
    origin = line.reused_from
    return Answer(
        run=origin.key if origin and origin.key else str(run.key),
        job=origin.job if origin and origin.key else job_id,
        manifest=line.artifacts.rpartition("/")[2] if line.artifacts else None,
        log=line.logs,
    )
