"""Reads single runs out of a poll: what a command doesn't show, it doesn't parse."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from cli.lines import RunLine, odd_line, run_line
from cli.session import Seen, Session
from dstack.ledger import records, runs
from dstack.ledger.notes import NotesReader
from dstack.ledger.objects import Damaged
from dstack.ledger.records import AssignmentsReader
from dstack.model import refs, runtext
from dstack.model.errors import Invalid
from dstack.model.job import JOB_LIMIT
from dstack.model.observation import Assignments, BrokenRun, Notes, Observation, RunRecord
from dstack.model.pool import Registration
from dstack.model.refs import RunKey
from dstack.model.views import Viewer
from dstack.model.world import RunView
from dstack.store.heartbeats import Heartbeats, Known, read_runners
from dstack.store.store import Store


@dataclass(slots=True)
class Reader:
    """For one command: it remembers what it has read, so that following a run costs what has changed."""

    session: Session
    _notes: NotesReader = field(default_factory=NotesReader)
    _beats: dict[str, Known] = field(default_factory=dict)
    _viewer: Viewer = field(init=False)

    def __post_init__(self) -> None:
        """The viewer reads jobs from the cache."""
        self._viewer = Viewer(self._job)

    def line(self, seen: Seen, name: str) -> RunLine:
        """The run of this name, which must be among the refs seen."""
        observation = self.observation(seen, [name])
        views = self.views(observation)
        if not views:
            return odd_line(observation.runs[name])
        return msgspec.structs.replace(run_line(views[0]), unreadable=_unreadable(observation))

    def view(self, seen: Seen, name: str) -> RunView | RunRecord | BrokenRun:
        """The run as folded; as read where it is broken or another repository's."""
        observation = self.observation(seen, [name])
        views = self.views(observation)
        return views[0] if views else observation.runs[name]

    def views(self, observation: Observation) -> tuple[RunView, ...]:
        """A view of each of its runs that is ours."""
        return self._viewer.views(observation, only=observation.runs)

    def observation(self, seen: Seen, names: Iterable[str], *, pool: bool = False) -> Observation:
        """These runs alone; with `pool`, all runners and assignments too."""
        wanted = set(names)
        return Observation(
            refs=seen.found,
            repository=seen.repository,
            config=None,
            runs={name: self._run(seen, name) for name in sorted(wanted)},
            notes=self._notes_of(seen, wanted),
            assignments=self._assignments(seen) if pool else {},
            runners=self.registrations(seen) if pool else {},
        )

    def registrations(self, seen: Seen) -> Mapping[str, Registration]:
        """All runners whose registration can be read."""
        found: dict[str, Registration] = {}
        for ref, oid in seen.found.items():
            name = refs.parse_runner(ref)
            if name:
                try:
                    found[name] = records.read_registration(self.session.cache.objects, name, oid)
                except (Invalid, Damaged):
                    continue  # `doctor` and the controller report it
        return found

    def heartbeats(self, store: Store) -> Heartbeats:
        """All runners' heartbeats there; of those that were read before, what has changed. Raises as a store."""
        return read_runners(store, self._beats.setdefault(store.url, {}))

    def _run(self, seen: Seen, name: str) -> RunRecord | BrokenRun:
        tip = seen.found[refs.run_branch(name)]
        try:
            return runs.read_run(self.session.cache.objects, runtext, name, tip)
        except Damaged as error:
            return BrokenRun(name=name, tip=tip, problem=str(error))

    def _notes_of(self, seen: Seen, names: set[str]) -> dict[RunKey, dict[str, Notes]]:
        notes: dict[RunKey, dict[str, Notes]] = {}
        for ref, oid in seen.found.items():
            parsed = refs.parse_note(ref)
            if parsed and parsed[0].name in names:
                key, writer = parsed
                notes.setdefault(key, {})[writer] = self._read_notes(key, writer, oid)
        return notes

    def _read_notes(self, key: RunKey, writer: str, oid: str) -> Notes:
        try:
            return self._notes.read(self.session.cache.objects, key, writer, oid)
        except Damaged as error:
            return Notes(oid=oid, notes={}, problem=str(error))

    def _assignments(self, seen: Seen) -> dict[str, Assignments]:
        reader, found = AssignmentsReader(), dict[str, Assignments]()
        for ref, oid in seen.found.items():
            name = refs.parse_assignment(ref)
            if name:
                try:
                    found[name] = reader.read(self.session.cache.objects, name, oid)
                except Damaged:
                    continue  # a projection: the controller makes it anew
        return found

    def _job(self, oid: str) -> bytes | None:
        try:
            return self.session.cache.objects.blob(oid, "job object", limit=JOB_LIMIT)
        except (Invalid, Damaged):
            return None


def _unreadable(observation: Observation) -> tuple[str, ...]:
    """What the notes of its runs hold that is no record: it is passed over, and must not be so in silence."""
    return tuple(
        f"in the notes of {writer}: {notes.problem}"
        for by_writer in observation.notes.values()
        for writer, notes in sorted(by_writer.items())
        if notes.problem
    )
