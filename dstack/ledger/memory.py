"""A ledger in memory: the same compare-and-swap and the same texts, without git. For simulation and quick tests."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dstack.model import refs
from dstack.model.events import Parsed, parse_controller_note, parse_root_note, parse_runner_note, to_line
from dstack.model.observation import (
    AppendNotes,
    Assignments,
    BrokenRun,
    Change,
    CreateRun,
    DeleteRef,
    Notes,
    Observation,
    Outcome,
    Pushed,
    RunRecord,
    SetAssignments,
    SetRegistration,
    SetSeen,
    SetTag,
    SetWanted,
)
from dstack.model.pool import Registration
from dstack.model.runspec import Wanted
from dstack.model.seen import Seen

Content = RunRecord | BrokenRun | Notes | Assignments | Registration | Seen | bytes


def _go_on(_: str) -> None:
    """Let a push change the ref."""


@dataclass(slots=True)
class MemoryRemote:
    """What several MemoryLedgers share: refs with an id and a content each, the raw notes, and job blobs by full id.

    `before_ref` is called before each ref of a push is changed: a test makes it raise, to cut a push in half.
    """

    repository: str
    refs: dict[str, tuple[str, Content]] = field(default_factory=dict)
    texts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    pushes: int = 0
    before_ref: Callable[[str], None] = _go_on
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> str:
        """An id no content had before."""
        return f"{next(self._ids):040x}"

    def add_run(self, record: RunRecord) -> None:
        """Put a run branch there, as a user's submit does."""
        self.refs[refs.run_branch(record.name)] = (record.tip, record)


class MemoryLedger:
    """One party's view of a MemoryRemote."""

    def __init__(self, remote: MemoryRemote) -> None:
        """Several ledgers may share `remote`."""
        self.remote = remote
        self._refs: dict[str, tuple[str, Content]] = {}
        self._seen: Observation | None = None

    def observe(self) -> Observation:
        """A consistent picture of the refs as they are; the same one where nothing has changed."""
        if self._seen is None or self._refs != self.remote.refs:
            self._refs = dict(self.remote.refs)
            self._seen = self._observed()
        return self._seen

    def _observed(self) -> Observation:
        items = {ref: pair for ref, pair in self.remote.refs.items() if ref != refs.CONFIG}
        config = self.remote.refs.get(refs.CONFIG)
        memory = self.remote.refs.get(refs.SEEN, ("", None))[1]
        return Observation(
            refs={ref: oid for ref, (oid, _) in self.remote.refs.items()},
            repository=self.remote.repository,
            config=config[1] if config and isinstance(config[1], bytes) else None,
            runs={n: c for ref, (_, c) in items.items() if (n := _run(ref)) and isinstance(c, RunRecord | BrokenRun)},
            notes=_notes_by_run(items),
            assignments={n: c for ref, (_, c) in items.items() if (n := _held(ref)) and isinstance(c, Assignments)},
            runners={n: c for ref, (_, c) in items.items() if (n := _runner(ref)) and isinstance(c, Registration)},
            seen=memory if isinstance(memory, Seen) else None,
        )

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """Compare-and-swap each ref against `seen`; as with git, those that there are come first."""
        self.remote.pushes += 1
        fits = {change.ref: self._fits(change, seen) for change in changes}
        if atomic and not all(fits.values()):
            return Pushed(outcomes={ref: Outcome.REFUSED if fit else Outcome.LOST for ref, fit in fits.items()})
        for change in sorted(changes, key=lambda one: one.ref not in self.remote.refs):
            if fits[change.ref]:
                self.remote.before_ref(change.ref)
                self._apply(change)
        return Pushed(outcomes={ref: Outcome.WON if fit else Outcome.LOST for ref, fit in fits.items()})

    def job(self, oid: str) -> bytes | None:
        """A job's blob."""
        return self.remote.blobs.get(oid)

    def _fits(self, change: Change, seen: Observation) -> bool:
        actual = self.remote.refs.get(change.ref)
        return (actual[0] if actual else None) == seen.refs.get(change.ref)

    def _apply(self, change: Change) -> None:
        remote = self.remote
        if isinstance(change, DeleteRef):
            remote.refs.pop(change.ref, None)
            remote.texts.pop(change.ref, None)
        elif isinstance(change, AppendNotes):
            self._append(change)
        elif isinstance(change, SetAssignments):
            oid = remote.new_id()
            value = Assignments(oid=oid, attempts=dict(change.attempts), jobs=dict(change.jobs))
            remote.refs[change.ref] = (oid, value)
        elif isinstance(change, SetRegistration):
            remote.refs[change.ref] = (remote.new_id(), change.registration)
        elif isinstance(change, SetTag):
            remote.refs[change.ref] = (change.root, b"")
        elif isinstance(change, CreateRun):
            self._create(change)
        elif isinstance(change, SetSeen):
            oid, before = remote.new_id(), remote.refs.get(change.ref, ("", None))[1]
            remote.refs[change.ref] = (oid, change.move.applied(before if isinstance(before, Seen) else Seen(), oid))
        else:
            self._want(change)

    def _create(self, change: CreateRun) -> None:
        root = self.remote.new_id()
        record = RunRecord(
            name=change.spec.run,
            tip=root,
            root=root,
            spec=change.spec,
            wanted=Wanted(),
            workflows=change.workflows,
            variables=change.variables,
        )
        self.remote.add_run(record)

    def _append(self, change: AppendNotes) -> None:
        remote = self.remote
        texts = remote.texts.setdefault(change.ref, {})
        for oid, events in change.events.items():
            texts[oid] = texts.get(oid, b"") + b"".join(to_line(event) for event in events)
        remote.blobs.update(change.jobs)
        before = remote.refs.get(change.ref, (None, None))[1]
        jobs = dict(before.jobs) if isinstance(before, Notes) else {}
        jobs.update({oid[:12]: oid for oid in change.jobs})
        known = before.notes if isinstance(before, Notes) else {}
        notes = {**known, **{oid: self._parse(change, oid, texts[oid], jobs) for oid in change.events}}
        oid = remote.new_id()
        remote.refs[change.ref] = (oid, Notes(oid=oid, notes=notes, jobs=jobs))

    def _parse(self, change: AppendNotes, oid: str, text: bytes, jobs: Mapping[str, str]) -> Parsed:
        if change.writer != refs.CONTROLLER:
            return parse_runner_note(text)
        return parse_controller_note(text) if oid[:12] in jobs else parse_root_note(text)

    def _want(self, change: SetWanted) -> None:
        record = self.remote.refs[change.ref][1]
        if isinstance(record, RunRecord):
            oid = self.remote.new_id()
            moved = RunRecord(
                name=record.name,
                tip=oid,
                root=record.root,
                spec=record.spec,
                wanted=change.wanted,
                workflows=record.workflows,
                variables=record.variables,
            )
            self.remote.refs[change.ref] = (oid, moved)


def _run(ref: str) -> str | None:
    return refs.parse_run_branch(ref)


def _held(ref: str) -> str | None:
    return refs.parse_assignment(ref)


def _runner(ref: str) -> str | None:
    return refs.parse_runner(ref)


def _notes_by_run(items: Mapping[str, tuple[str, Content]]) -> dict[refs.RunKey, dict[str, Notes]]:
    by_run: dict[refs.RunKey, dict[str, Notes]] = {}
    for ref, (_, content) in items.items():
        parsed = refs.parse_note(ref)
        if parsed and isinstance(content, Notes):
            by_run.setdefault(parsed[0], {})[parsed[1]] = content
    return by_run
