"""What one poll of the state remote shows, and the changes one commit can make: how the parts speak with a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dstack.model import refs
from dstack.model.events import Event, Parsed
from dstack.model.pool import Attempt, Registration
from dstack.model.refs import RunKey
from dstack.model.runspec import RunSpec, Wanted
from dstack.model.seen import Move, Seen

NOTHING = Parsed()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run branch as read. `workflows` and `variables` are the texts of its root; `tip` and `root` are full ids."""

    name: str
    tip: str
    root: str
    spec: RunSpec
    wanted: Wanted
    workflows: bytes
    variables: bytes | None

    @property
    def key(self) -> RunKey:
        """The run's key in note and snapshot refs."""
        return RunKey.of(self.name, self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRun:
    """A run branch that can't be read or doesn't lead to its root: shown with `problem`, never executed."""

    name: str
    tip: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """All notes of one writer about one run.

    `oid` is the notes commit; `notes` maps the full id of a root or job to its note. `jobs` (controller only) maps a
    job's 12 digits to the full id of its blob.
    """

    oid: str
    notes: Mapping[str, Parsed]
    jobs: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    def on(self, oid: str) -> Parsed:
        """The note on this object; an empty one where there is none."""
        return self.notes.get(oid, NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """The assignment ref of a runner: `attempts` by `<job>.<attempt>`, with the full id of the job's blob."""

    oid: str
    attempts: Mapping[str, Attempt]
    jobs: Mapping[str, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One poll. `refs` maps every polled ref to its full id. What could not be read is absent and stands in `problems`.

    `repository` is the id from `refs/dstack/id`; `config` the text of `config.yaml`. `seen`: what triggers remember,
    None where nothing was written yet, or nothing of it can be read.
    """

    refs: Mapping[str, str]
    repository: str | None
    config: bytes | None
    runs: Mapping[str, RunRecord | BrokenRun]
    notes: Mapping[RunKey, Mapping[str, Notes]]
    assignments: Mapping[str, Assignments]
    runners: Mapping[str, Registration]
    problems: tuple[str, ...] = ()
    seen: Seen | None = None

    def notes_of(self, key: RunKey, writer: str) -> Notes | None:
        """The notes of one writer about one run."""
        return self.notes.get(key, {}).get(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendNotes:
    """Append events to the notes of `writer`, by the full id of root or job. `jobs`: blobs to add, by full id."""

    key: RunKey
    writer: str
    events: Mapping[str, tuple[Event, ...]]
    jobs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.note(self.key, self.writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAssignments:
    """Make the assignment ref of `runner` hold exactly these attempts; `jobs` has the full id of each one's job blob.

    The blobs themselves stand in the controller's notes, or come with an AppendNotes before this in the same commit.
    """

    runner: str
    attempts: Mapping[str, Attempt]
    jobs: Mapping[str, str]

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.assignment(self.runner)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRegistration:
    """Write the registration of a runner."""

    registration: Registration

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.runner(self.registration.runner)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWanted:
    """Append to a run branch what is wanted now."""

    run: str
    wanted: Wanted

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.run_branch(self.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTag:
    """Have a tag name the run `key`, whose first commit is `root` (full id), whatever it named before."""

    tag: str
    key: RunKey
    root: str

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.tag(self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRun:
    """Create a run, and the ref of its snapshot, `spec.code.snapshot`. `workflows`, `variables`: texts of its root.

    `parentless`: the state remote lacks that commit's history, so its tree travels as a snapshot without parents.
    """

    spec: RunSpec
    workflows: bytes
    variables: bytes | None
    parentless: bool = False

    @property
    def ref(self) -> str:
        """The ref this creates, beside that of the snapshot."""
        return refs.run_branch(self.spec.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSeen:
    """Change what triggers remember. It stands behind the runs of the same push, so that none of them is forgotten."""

    move: Move

    @property
    def ref(self) -> str:
        """The ref this changes."""
        return refs.SEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRef:
    """Remove a ref."""

    ref: str


Change = AppendNotes | SetAssignments | SetRegistration | SetWanted | SetTag | CreateRun | SetSeen | DeleteRef


class Outcome(StrEnum):
    """What became of a ref in a push. Lost: its lease did not hold. Refused: by a rule, a lock, another ref's fault."""

    WON = "won"
    LOST = "lost"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The result of one push, by ref; `reasons` has the remote's words for what was not won."""

    outcomes: Mapping[str, Outcome]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def won(self) -> bool:
        """Whether every ref was won."""
        return all(outcome is Outcome.WON for outcome in self.outcomes.values())

    def won_ref(self, ref: str) -> bool:
        """Whether this ref was won."""
        return self.outcomes.get(ref) is Outcome.WON
