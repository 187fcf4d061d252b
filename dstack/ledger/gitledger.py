"""The ledger in git: a poll becomes values, changes become one leased push. What did not change is not read again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from dstack.ledger import notes, records, runs
from dstack.ledger.cache import Cache
from dstack.ledger.localrefs import MALFORMED
from dstack.ledger.notes import NotesReader
from dstack.ledger.objects import Damaged
from dstack.ledger.push import RefUpdate
from dstack.ledger.records import AssignmentsReader
from dstack.ledger.runs import RunText, WriteCommit
from dstack.ledger.seentree import SeenReader, write_seen
from dstack.ledger.signing import Signing
from dstack.ledger.tags import read_tag
from dstack.model import refs, runtext
from dstack.model.errors import Invalid
from dstack.model.job import JOB_LIMIT
from dstack.model.observation import (
    AppendNotes,
    Assignments,
    BrokenRun,
    Change,
    CreateRun,
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
from dstack.model.refs import RunKey
from dstack.model.seen import Seen
from dstack.model.tags import TaggedFiles, TaggedRun

V = TypeVar("V")

_MALFORMED = "its file in the state remote holds no object's id: restore it from a copy, or remove it"

NOTHING_SEEN = Observation(refs={}, repository=None, config=None, runs={}, notes={}, assignments={}, runners={})


@dataclass(slots=True)
class _Draft:
    """An observation in the making: the one before, to be brought up to date ref by ref."""

    repository: str | None
    config: bytes | None
    runs: dict[str, RunRecord | BrokenRun]
    notes: dict[RunKey, dict[str, Notes]]
    assignments: dict[str, Assignments]
    runners: dict[str, Registration]
    problems: dict[str, str]
    seen: Seen | None


@dataclass(slots=True)
class GitLedger:
    """Implements `dstack.ledger.ledger.Ledger` over a cache. For one thread at a time.

    `signing`: how the commits of run branches are signed; None: not at all.
    """

    cache: Cache
    text: RunText = runtext
    signing: Signing | None = None
    _last: Observation = NOTHING_SEEN
    _problems: Mapping[str, str] = field(default_factory=dict)
    _notes: NotesReader = field(default_factory=NotesReader)
    _assignments: AssignmentsReader = field(default_factory=AssignmentsReader)
    _seen: SeenReader = field(default_factory=SeenReader)

    def observe(self) -> Observation:
        """Poll once: one fetch. The very same value as before where nothing changed. Raises Unavailable, Failed."""
        found = self.cache.poll()
        try:
            return self._update(found, lenient=False)
        except Damaged:
            self.cache.renew()
            return self._update(self.cache.poll(), lenient=True)

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """One push, every ref leased to what `seen` shows. Raises Unavailable where it is not known what was won."""
        built: dict[str, str | None] = {}
        refused: dict[str, str] = {}
        for change in changes:
            if seen.refs.get(change.ref) == MALFORMED:
                refused[change.ref] = f"{change.ref}: {_MALFORMED}"
                continue
            try:
                built |= self._made(change, seen, built.get(change.ref, seen.refs.get(change.ref)))
            except (Invalid, Damaged) as error:
                refused[change.ref] = str(error)
        if refused and atomic:
            refused = {one.ref: refused.get(one.ref, "another ref of this push was refused") for one in changes}
        taken = {} if refused and atomic else {ref: new for ref, new in built.items() if ref not in refused}
        updates = [RefUpdate(ref, seen.refs.get(ref), new) for ref, new in taken.items()]
        pushed = self.cache.push(updates, atomic=atomic)
        outcomes = dict.fromkeys(refused, Outcome.REFUSED)
        return Pushed(outcomes={**pushed.outcomes, **outcomes}, reasons={**pushed.reasons, **refused})

    @property
    def write(self) -> WriteCommit | None:
        """Who writes the commits of run branches, where they are to be signed."""
        return self.signing.writer(self.cache.objects, self.cache.context) if self.signing else None

    def job(self, oid: str) -> bytes | None:
        """The content of a job's blob that an observation named (full id)."""
        try:
            return self.cache.objects.blob(oid, "job object", limit=JOB_LIMIT)
        except (Invalid, Damaged):
            return None

    def tagged(self, oid: str) -> TaggedRun | TaggedFiles:
        """What a tag names, at its full id. Raises Invalid."""
        try:
            return read_tag(self.cache.objects, self.text, oid)
        except Damaged as error:
            msg = f"the tag at {oid[:12]} can't be read: {error}"
            raise Invalid(msg) from error

    def _made(self, change: Change, seen: Observation, base: str | None) -> dict[str, str | None]:
        """The new ids of the refs that it changes."""
        match change:
            case CreateRun():
                return self._create(change)
            case SetSeen():
                return {change.ref: write_seen(self.cache.objects, base, change.move)}
            case _:
                return {change.ref: self._build(change, seen, base)}

    def _build(self, change: Change, seen: Observation, base: str | None) -> str | None:
        objects = self.cache.objects
        match change:
            case AppendNotes():
                return notes.append(objects, change, base)
            case SetAssignments():
                return records.write_assignments(objects, change)
            case SetRegistration():
                return records.write_registration(objects, change.registration)
            case SetWanted():
                return runs.write_wanted(objects, self.text, _record(seen, change.run), change.wanted, self.write)
            case SetTag():
                return change.root
            case _:
                return None

    def _create(self, change: CreateRun) -> dict[str, str | None]:
        """The run's branch and the ref of its snapshot. Raises Invalid, Damaged, Failed."""
        objects, code = self.cache.objects, change.spec.code
        if change.parentless:
            message = f"The work tree at {code.commit[:12]} [skip ci]\n\nHead: {code.commit}"
            whole = objects.write_commit(objects.commit(code.commit).tree, [], message)
            code = msgspec.structs.replace(code, snapshot=whole)
        spec = msgspec.structs.replace(change.spec, code=code)
        variables = objects.write_blob(change.variables) if change.variables is not None else None
        files = runs.RootFiles(workflows=objects.write_blob(change.workflows), variables=variables)
        root = runs.write_root(objects, self.text, spec, files, self.write)
        return {change.ref: root, refs.snapshot(RunKey.of(spec.run, root)): code.snapshot}

    def _update(self, found: Mapping[str, str], *, lenient: bool) -> Observation:
        """The observation of these refs; `lenient`: damage is reported as a problem, for it is the remote's own."""
        last = self._last
        if found == last.refs:
            return last
        draft = self._draft()
        for ref in last.refs.keys() | found.keys():
            if (oid := found.get(ref)) != last.refs.get(ref):
                self._take(draft, ref, oid, lenient=lenient)
        self._notes.keep({(key, writer) for key, writers in draft.notes.items() for writer in writers})
        self._assignments.keep(set(draft.assignments))
        self._problems = draft.problems
        self._last = Observation(
            refs=found,
            repository=draft.repository,
            config=draft.config,
            runs=draft.runs,
            notes=draft.notes,
            assignments=draft.assignments,
            runners=draft.runners,
            problems=tuple(problem for _, problem in sorted(draft.problems.items())),
            seen=draft.seen,
        )
        return self._last

    def _draft(self) -> _Draft:
        last = self._last
        return _Draft(
            repository=last.repository,
            config=last.config,
            runs=dict(last.runs),
            notes={key: dict(writers) for key, writers in last.notes.items()},
            assignments=dict(last.assignments),
            runners=dict(last.runners),
            problems=dict(self._problems),
            seen=last.seen,
        )

    def _take(self, draft: _Draft, ref: str, oid: str | None, *, lenient: bool) -> None:
        """Bring one ref up to date in `draft`."""
        draft.problems.pop(ref, None)
        try:
            problem = self._read(draft, ref, oid) if oid != MALFORMED else self._broken(draft, ref, oid, _MALFORMED)
        except Invalid as error:
            self._read(draft, ref, None)
            problem = str(error)
        except Damaged as error:
            if not lenient:
                raise
            problem = self._broken(draft, ref, oid or "", str(error))
        if problem:
            draft.problems[ref] = f"{ref}: {problem}"

    def _broken(self, draft: _Draft, ref: str, oid: str, problem: str) -> str:
        """What can't be read counts for nothing, but a run is not gone because its branch is broken."""
        self._read(draft, ref, None)
        if run := refs.parse_run_branch(ref):
            draft.runs[run] = BrokenRun(name=run, tip=oid, problem=problem)
        return problem

    def _read(self, draft: _Draft, ref: str, oid: str | None) -> str:
        """Read what the ref holds (None: it is gone) into `draft`. What is broken is returned, or raised as Invalid."""
        objects = self.cache.objects
        if run := refs.parse_run_branch(ref):
            _set(draft.runs, run, runs.read_run(objects, self.text, run, oid) if oid else None)
        elif parsed := refs.parse_note(ref):
            return _set_notes(draft, parsed, self._notes.read(objects, *parsed, oid) if oid else None)
        elif runner := refs.parse_assignment(ref):
            value = self._assignments.read(objects, runner, oid) if oid else None
            _set(draft.assignments, runner, value)
            return "; ".join(value.problems) if value else ""
        elif runner := refs.parse_runner(ref):
            _set(draft.runners, runner, records.read_registration(objects, runner, oid) if oid else None)
        elif ref == refs.ID:
            draft.repository = records.read_id(objects, oid) if oid else None
        elif ref == refs.CONFIG:
            draft.config = records.read_config(objects, oid) if oid else None
        elif ref == refs.SEEN:
            draft.seen = self._seen.read(objects, oid) if oid else None
            return "; ".join(draft.seen.faults) if draft.seen else ""
        elif oid and not ref.startswith((refs.SEEN, refs.tag(""))):
            return "it is no ref of dstack's, by its name"
        return ""


def _record(seen: Observation, run: str) -> RunRecord:
    record = seen.runs.get(run)
    if isinstance(record, RunRecord):
        return record
    msg = record.problem if record else f"there is no run {run}"
    raise Invalid(msg)


def _set_notes(draft: _Draft, named: tuple[RunKey, str], value: Notes | None) -> str:
    key, writer = named
    _set(draft.notes.setdefault(key, {}), writer, value)
    if not draft.notes[key]:
        del draft.notes[key]
    return value.problem if value else ""


def _set(values: dict[str, V], name: str, value: V | None) -> None:
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value
