"""What fires: the code remote as it was seen and as it is now → events, each with the runs to make. No I/O, no clock.

What it must know of commits, it asks for (`Firing.lookups`): look that up, and call it again with the facts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dstack.model.runspec import Trigger
from dstack.model.seen import Move, Seen
from dstack.model.triggers import Triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class Tips:
    """One look at the code remote: full refs → full ids of commits (tags peeled; what names no commit is left out).

    `default`: the branch its HEAD names, without `refs/heads/`. `bases`: the branches that pull requests are to be
    merged into, where the forge told; elsewhere the default branch is taken for it.
    """

    refs: Mapping[str, str]
    default: str | None
    bases: Mapping[int, str] = field(default_factory=dict)


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

    `reached`: whether any branch of the repository contains this commit.
    """

    commits: Mapping[str, CommitFacts] = field(default_factory=dict)
    changed: Mapping[Diff, frozenset[str] | None] = field(default_factory=dict)
    reached: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What is to be looked up before the rest can be told: keys of Facts that are lacking."""

    commits: frozenset[str] = frozenset()
    changed: frozenset[Diff] = frozenset()
    reached: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.commits or self.changed or self.reached)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A run to make of `workflow` as it stands at `trigger.commit`. Its name: `run_names.triggered_name`."""

    workflow: str
    trigger: Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened at `path` of the memory. Its runs and its move belong in one atomic push.

    The moves of events are independent of each other; several events may go in one push, evaluated against one memory.
    `can_wait`: there are no runs, and nothing is lost if the move is never written.
    """

    path: str
    move: Move
    runs: tuple[Fired, ...] = ()
    can_wait: bool = False


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


# Why `by` (whom the commit names) may start nothing by moving the ref (a full one); None: it may.
Allowed = Callable[[str, str], str | None]


def fire(seen: Seen | None, tips: Tips, facts: Facts, now: datetime, allowed: Allowed | None = None) -> Firing:
    """All that can be told from these facts."""
    raise NotImplementedError
