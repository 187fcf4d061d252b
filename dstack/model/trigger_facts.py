"""What triggers look at, what they ask for and what they answer: one look at the code remote, facts, and events."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, TypeVar

from dstack.model.errors import Invalid
from dstack.model.runspec import Trigger
from dstack.model.seen import Made, Move, Seen, one_line
from dstack.model.triggers import Triggers
from dstack.model.workflows import parse_workflows

MAX_BY = 300

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tips:
    """One look at the code remote: full refs → full ids of commits (tags peeled; what names no commit is left out).

    `default`: the branch its HEAD names, without `refs/heads/`. `bases`: the branches that pull requests are to be
    merged into, where the forge told; elsewhere the default branch is taken for it. `awaited`: pull requests that are
    left for later, until the forge has told.
    """

    refs: Mapping[str, str]
    default: str | None
    bases: Mapping[int, str] = field(default_factory=dict)
    awaited: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFacts:
    """What a commit says. `on`: the triggers of the workflows that have some. `by`: its committer, `Name <mail>`.

    `problem`: why its workflows can't be read.
    """

    by: str
    message: str
    on: Mapping[str, Triggers] = field(default_factory=dict)
    problem: str = ""


class Diff(NamedTuple):
    """A question: which paths differ. `forked`: not from `before` itself, but from their merge base."""

    before: str
    after: str
    forked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was looked up. `changed`: None where it can't be told or is too much: then everything counts as changed.

    `reached`: whether any branch of the repository contains this commit. `signers`: to whom a commit's signature was
    verified, empty where to nobody; asked only where a rule names signers.
    """

    commits: Mapping[str, CommitFacts] = field(default_factory=dict)
    changed: Mapping[Diff, frozenset[str] | None] = field(default_factory=dict)
    reached: Mapping[str, bool] = field(default_factory=dict)
    signers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What is to be looked up before the rest can be told: keys of Facts that are lacking."""

    commits: frozenset[str] = frozenset()
    changed: frozenset[Diff] = frozenset()
    reached: frozenset[str] = frozenset()
    signers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.commits or self.changed or self.reached or self.signers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A run to make of `workflow` as it stands at `trigger.commit`. Its name: `run_names.triggered_name`."""

    workflow: str
    trigger: Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened at `path` of the memory. Its runs and its move belong in one atomic push.

    Several events of one answer may go in one push, the first ones first. `can_wait`: there are no runs, and nothing
    goes wrong if the move is never written, or later: then the next event at this path counts from the older mark.
    """

    path: str
    move: Move
    runs: tuple[Fired, ...] = ()
    can_wait: bool = False

    def making(self, keys: AbstractSet[str], memory: Seen) -> "Event":
        """The event as it is pushed with those of its runs that have these keys: see `Made`."""
        own = tuple(run.trigger.key for run in self.runs if run.trigger.key in keys)
        if not own and self.path not in memory.made:
            return self
        before = {path: memory.marks.get(path) for path in self.move.marks}
        made = Made(keys=own, before=before, against=memory.against(self.path)) if own else None
        return replace(self, move=replace(self.move, made={self.path: made}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What is to be done, in this order. `baseline`: the memory to write first, where there was none: nothing fires.

    `next_at`: when a schedule is due next. `active`: whether any workflow of the default branch, or of what moved, has
    triggers. `problem`: why nothing at all can be evaluated.
    """

    events: tuple[Event, ...] = ()
    baseline: Seen | None = None
    lookups: Lookups = field(default_factory=Lookups)
    next_at: datetime | None = None
    active: bool = False
    problem: str = ""


def read_commit(workflows: bytes | None, by: str, message: str) -> CommitFacts:
    """The facts of a commit. `workflows`: its `.dstack/workflows.yaml`; None: it has none, which is no problem.

    `by` and `message` are what people wrote, of any length.
    """
    by = one_line(by, MAX_BY)
    if workflows is None:
        return CommitFacts(by=by, message=message)
    try:
        found = parse_workflows(workflows, allow_env=None).by_name
    except Invalid as error:
        return CommitFacts(by=by, message=message, problem=str(error))
    return CommitFacts(by=by, message=message, on={name: one.on for name, one in found.items() if one.on})


class Lacking(Exception):
    """A fact isn't there yet."""


class Asking:
    """Facts, and what was asked of them in vain."""

    def __init__(self, facts: Facts) -> None:
        """Nothing is lacking yet."""
        self._facts = facts
        self._commits: set[str] = set()
        self._changed: set[Diff] = set()
        self._reached: set[str] = set()
        self._signers: set[str] = set()

    @property
    def lookups(self) -> Lookups:
        """What is lacking."""
        return Lookups(
            commits=frozenset(self._commits),
            changed=frozenset(self._changed),
            reached=frozenset(self._reached),
            signers=frozenset(self._signers),
        )

    def commit(self, oid: str) -> CommitFacts:
        """What this commit says. Raises Lacking."""
        return _found(self._facts.commits, oid, self._commits)

    def changed(self, diff: Diff) -> frozenset[str] | None:
        """Which paths differ; None: any may. Raises Lacking."""
        return _found(self._facts.changed, diff, self._changed)

    def reached(self, oid: str) -> bool:
        """Whether a branch contains this commit. Raises Lacking."""
        return _found(self._facts.reached, oid, self._reached)

    def signer(self, oid: str) -> str:
        """To whom the commit's signature was verified. Raises Lacking."""
        return _found(self._facts.signers, oid, self._signers)


def _found(known: Mapping[K, V], key: K, lacking: set[K]) -> V:
    if key not in known:
        lacking.add(key)
        raise Lacking
    return known[key]
