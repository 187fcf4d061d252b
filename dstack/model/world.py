"""What `decide` looks at: one consistent picture of runs, runners and time, made by an observer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dstack.model.liveness import Watched
from dstack.model.observation import Assignments
from dstack.model.plan import Plan
from dstack.model.pool import Registration
from dstack.model.refs import RunKey
from dstack.model.reuse import Answer
from dstack.model.runspec import RunSpec, Wanted
from dstack.model.states import RunState

# What was found at a key of a store (its URL, the key): the digest of an artifact set. None: nothing is looked up.
Sets = Mapping[tuple[str, str], str | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now: `wall` for records that people read, `ticks` (monotonic seconds of this process) for every decision."""

    wall: datetime
    ticks: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run. `problem` says why it can't be planned (then `plan` is None). `lines`: how many lines each note has.

    `distrust`: why nothing of it may be executed, though only signed runs are.
    """

    key: RunKey
    root: str
    spec: RunSpec
    wanted: Wanted
    plan: Plan | None
    problem: str = ""
    distrust: str = ""
    state: RunState = field(default_factory=RunState)
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerView:
    """One runner: what it registered and what was concluded from its heartbeats."""

    registration: Registration
    watched: Watched

    @property
    def name(self) -> str:
        """The runner's name."""
        return self.registration.runner


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All of it. `runs` holds finished ones too. `kept` are runs whose branch is gone, not yet for long enough.

    `entropy` is fresh random text for nonces. `lease` and `interval` (between two pushes) in seconds. `settled` maps
    `<job>.<attempt>` of revoked attempts to when we first saw that, in ticks: retries wait from there. `only`: decide
    for this one run alone (`--local`). `opened` maps `<job>.<attempt>` of open attempts to when we first saw them, in
    ticks. `stores`: where stores have moved, old URL → new URL. `tags` maps tags to full ids. `settled_in`: a full
    lease has passed since our start. `cache` maps full ids of jobs to the job that stands in, or None where none does;
    what is absent was not looked up. Without it nothing is looked up, and nothing reused. `sets` likewise maps (store's
    URL, key) to the digest of the whole artifact set that is found there, or None.
    """

    repository: str
    store: str
    runs: tuple[RunView, ...]
    runners: Mapping[str, RunnerView] = field(default_factory=dict)
    assignments: Mapping[str, Assignments] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    settled: Mapping[str, float] = field(default_factory=dict)
    opened: Mapping[str, float] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    entropy: str
    lease: float = 60.0
    interval: float = 0.1
    only: RunKey | None = None
    settled_in: bool = True
    cache: Mapping[str, Answer | None] | None = None
    sets: Sets = None
