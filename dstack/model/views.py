"""An observation → views of its runs. Pure, with memory: what did not change since the last poll costs little."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dstack.model import job as jobs
from dstack.model.errors import Invalid
from dstack.model.events import Event, Parsed
from dstack.model.observation import Notes, Observation, RunRecord
from dstack.model.plan import Plan, PlannedJob
from dstack.model.planner import make_plan
from dstack.model.refs import CONTROLLER, RunKey
from dstack.model.states import JobState, RunState, fold_job, fold_root
from dstack.model.world import RunView

JobReader = Callable[[str], bytes | None]

_Seen = tuple[Parsed | None, tuple[tuple[str, Parsed], ...], int]


@dataclass(slots=True, kw_only=True)
class _Memory:
    """What was concluded of one run: by all its ids, and by each job's notes."""

    ids: tuple[object, ...] = ()
    view: RunView | None = None
    plan: Plan | None = None
    planned: tuple[str, ...] | None = None
    problem: str = ""
    folds: dict[str, tuple[_Seen, JobState]] = field(default_factory=dict)


class Viewer:
    """Makes views of runs; one for each observer, since it remembers."""

    def __init__(self, read_job: JobReader) -> None:
        """`read_job` gives the content of a job's blob by its full id."""
        self._read_job = read_job
        self._memories: dict[RunKey, _Memory] = {}

    def views(self, observation: Observation, *, only: Iterable[str] | None = None) -> tuple[RunView, ...]:
        """A view of each run that is ours and can be read; `only` limits it to these names."""
        names = observation.runs if only is None else [name for name in only if name in observation.runs]
        ours = [record for name in names if (record := our_run(observation, name))]
        if only is None:
            keys = {record.key for record in ours}
            self._memories = {key: memory for key, memory in self._memories.items() if key in keys}
        return tuple(self._view(record, observation.notes.get(record.key, {})) for record in ours)

    def _view(self, record: RunRecord, notes: Mapping[str, Notes]) -> RunView:
        memory = self._memories.setdefault(record.key, _Memory())
        ids = (record.tip, tuple(sorted((writer, note.oid) for writer, note in notes.items())))
        if memory.view is None or memory.ids != ids:
            memory.view = self._make(record, notes, memory)
            memory.ids = ids
        return memory.view

    def _make(self, record: RunRecord, notes: Mapping[str, Notes], memory: _Memory) -> RunView:
        controller = notes.get(CONTROLLER)
        root_note = controller.on(record.root) if controller else Parsed()
        state, generations = fold_root(root_note.events)
        self._plan(record, state, memory)
        plan = memory.plan
        folded = _fold_jobs(plan, notes, generations, memory) if plan else {}
        return RunView(
            key=record.key,
            root=record.root,
            spec=record.spec,
            wanted=record.wanted,
            plan=plan,
            problem=memory.problem,
            state=RunState(
                generation=state.generation,
                planned=state.planned,
                finished=state.finished,
                tagged=state.tagged,
                summaries=state.summaries,
                jobs=folded,
            ),
            lines={oid: note.lines for oid, note in controller.notes.items()} if controller else {},
        )

    def _plan(self, record: RunRecord, state: RunState, memory: _Memory) -> None:
        """The jobs as planned once they are; else as anybody computes them from the root."""
        planned = state.planned.jobs if state.planned else None
        if memory.planned == planned and (memory.plan or memory.problem):
            return
        if planned is not None and memory.plan and tuple(job.oid for job in memory.plan.jobs) == planned:
            memory.planned = planned
            return
        memory.planned = planned
        try:
            memory.plan = self._read_plan(planned) if planned is not None else _compute(record)
            memory.problem = ""
        except Invalid as error:
            memory.plan, memory.problem = None, str(error)

    def _read_plan(self, oids: tuple[str, ...]) -> Plan:
        return Plan(jobs=tuple(PlannedJob(oid=oid, job=self._job(oid)) for oid in oids))

    def _job(self, oid: str) -> jobs.Job:
        data = self._read_job(oid)
        if data is None:
            msg = f"the job object {oid} is missing from the state remote"
            raise Invalid(msg)
        return jobs.from_bytes(data)


def our_run(observation: Observation, name: str) -> RunRecord | None:
    """The run of this name if it can be read and belongs to this dstack repository; a fork carries those of another."""
    record = observation.runs.get(name)
    return record if isinstance(record, RunRecord) and record.spec.repository == observation.repository else None


def _compute(record: RunRecord) -> Plan:
    return make_plan(record.root, record.spec, record.workflows, record.variables)


def _fold_jobs(
    plan: Plan, notes: Mapping[str, Notes], generations: Mapping[str, int], memory: _Memory
) -> dict[str, JobState]:
    controller = notes.get(CONTROLLER)
    if controller is None:
        return {}
    runners = {writer: note for writer, note in notes.items() if writer != CONTROLLER}
    states: dict[str, JobState] = {}
    for planned in plan.jobs:
        decided = controller.notes.get(planned.oid)
        if decided is None:
            continue
        claims = tuple((name, note.notes[planned.oid]) for name, note in runners.items() if planned.oid in note.notes)
        seen = (decided, claims, generations.get(planned.id, 1))
        states[planned.id] = _fold(planned.id, seen, memory)
    return states


def _fold(job_id: str, seen: _Seen, memory: _Memory) -> JobState:
    known = memory.folds.get(job_id)
    if known and _same(known[0], seen):
        return known[1]
    decided, claims, generation = seen
    runners: dict[str, tuple[Event, ...]] = {name: note.events for name, note in claims}
    state = fold_job(decided.events if decided else (), runners, generation=generation)
    memory.folds[job_id] = (seen, state)
    return state


def _same(one: _Seen, other: _Seen) -> bool:
    """By identity: ledgers give the same object for the same note."""
    return (
        one[0] is other[0]
        and one[2] == other[2]
        and len(one[1]) == len(other[1])
        and all(a[0] == b[0] and a[1] is b[1] for a, b in zip(one[1], other[1], strict=True))
    )
