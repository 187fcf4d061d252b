"""One turn of the controller: observe (one fetch) → fold → decide → one atomic push. Knows no git, store or clock."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controller.archiving import Archiver, NoArchive
from controller.backoff import Backoff, Refusals
from controller.reporting import NoReporter, Reporter
from controller.reusing import Cache, NoCache, Reuse
from controller.triggering import NoTriggers, Triggers
from controller.trouble import Trouble
from controller.trusting import Trusting
from dstack.ledger.ledger import Ledger
from dstack.model import refs
from dstack.model.bucket import FORGE_CONTROLLER, Bucket
from dstack.model.decide import Decisions
from dstack.model.errors import DstackError, Invalid, Unavailable
from dstack.model.groups import independent_groups
from dstack.model.liveness import Sight, Watch, watch
from dstack.model.observation import AppendNotes, Change, Observation, Outcome, Pushed
from dstack.model.orphans import Absences
from dstack.model.personal import Layer, overlaid
from dstack.model.pool import Heartbeat, attempt_key
from dstack.model.refs import RunKey
from dstack.model.settings import Settings, parse_settings
from dstack.model.views import Viewer
from dstack.model.world import Moment, RunnerView, RunView, World

LOG = logging.getLogger(__name__)

# Who looks at heartbeats more rarely can't tell a silent runner from its own sleep, and is itself taken for dead.
LOOKS_PER_LEASE = 4
# What could not be looked up in this turn.
LOOK_AGAIN_SECONDS = 0.1

_NOTHING_TO_DO = Pushed(outcomes={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulses:
    """Every runner's last heartbeat, by (runner, instance); `away`: URLs of the stores that could not be read."""

    heartbeats: Mapping[tuple[str, str], Heartbeat]
    away: frozenset[str] = frozenset()


class Pulse(Protocol):
    """The stores as the controller needs them."""

    def heartbeats(self, urls: frozenset[str]) -> Pulses:
        """What these stores hold."""
        ...

    def beat(self, now: Moment, lease: float) -> None:
        """Tell readers that somebody is home, if it is time to. Raises DstackError."""
        ...


@dataclass(slots=True, kw_only=True)
class Controller:
    """One controller: `step` is called whenever something may have changed. Several may work on one remote.

    `store` is where new runs' bytes go unless the shared settings say otherwise. `entropy` gives fresh random text, and
    `jitter` a fresh number from 0 to 1. `cache` answers which jobs may be reused;
    `archive` takes finished runs. `longest`: seconds that what fails waits at most, see `patience.pause`.
    `only`: decide for one run alone. `polled`: when the last turn went well; `failure`: why those after it did not.
    """

    ledger: Ledger
    pulse: Pulse
    store: str
    entropy: Callable[[], str]
    jitter: Callable[[], float]
    bucket: Bucket
    cache: Cache = field(default_factory=NoCache)
    archive: Archiver = field(default_factory=NoArchive)
    reporter: Reporter = field(default_factory=NoReporter)
    triggers: Triggers = field(default_factory=NoTriggers)
    longest: float | None = None
    trust: Trusting = field(default_factory=Trusting)
    only: RunKey | None = None
    personal: tuple[Layer, ...] = ()
    settings: Settings = field(default_factory=Settings)
    began: float | None = None
    turns: int = 0
    pushes: int = 0
    polled: Moment | None = None
    failure: str | None = None
    failures: int = 0
    runs: int = 0
    _viewer: Viewer = field(init=False)
    _reuse: Reuse = field(init=False)
    _pace: tuple[float, int] = field(init=False)
    _looked: float | None = None
    _watch: Watch = field(default_factory=Watch)
    _absences: Absences = field(default_factory=Absences)
    _settled: dict[str, float] = field(default_factory=dict)
    _opened: dict[str, float] = field(default_factory=dict)
    _backoff: Backoff = field(default_factory=Backoff)
    _refusals: Refusals = field(default_factory=Refusals)
    _trouble: Trouble = field(default_factory=Trouble)

    def __post_init__(self) -> None:
        """The memory of what was folded belongs to this controller."""
        self._viewer = Viewer(self.ledger.job)
        self._reuse = Reuse(self.cache)
        self._pace = (self.bucket.interval, self.bucket.burst)

    def step(self, now: Moment) -> float | None:
        """One turn. Answers in how many seconds the next is due if nothing wakes us; None if only news matters."""
        self.began = now.ticks if self.began is None else self.began
        wait = max(self._backoff.until - now.ticks, self._wait_for_token(now))
        if wait > 0:
            return wait
        self.turns += 1
        self._looked = now.ticks
        try:
            due = self._turn(now)
        except DstackError as error:
            return self._later(now, error)
        self.polled, self.failure = now, None
        return due

    def crashed(self, now: Moment, error: Exception) -> float:
        """A turn broke off by a mistake of ours, which likely comes again. In how many seconds the next is due."""
        self.failure, self.failures = f"{type(error).__name__}: {error}", self.failures + 1
        self._backoff = self._backoff.after_outage(now.ticks, self.jitter(), error, self.longest)
        return self._backoff.until - now.ticks

    def retry(self) -> None:
        """Wait no longer for what has failed, or was refused."""
        self._backoff, self._refusals = Backoff(), Refusals()

    def _wait_for_token(self, now: Moment) -> float:
        """Seconds until there is something to do: what may not be pushed yet gathers, but heartbeats are looked at."""
        token = self.bucket.ready_at(now.ticks) - now.ticks
        look = self.settings.lease / LOOKS_PER_LEASE
        return token if self._looked is None else min(token, self._looked + look - now.ticks)

    def _turn(self, now: Moment) -> float | None:
        seen = self.ledger.observe()
        if seen.repository is None:
            self._trouble.tell("repository", "the state remote holds no dstack repository yet: run `dstack init`")
            return None
        self._trouble.over("repository", "the state remote is back")
        self._trouble.passed_over(seen.problems)
        self._configure(seen, now)
        world = self._world(seen, now)
        if not self.only:
            self.reporter.offer(world, self.settings)
        decisions = self._reuse.decide(world, now)
        changes = (*decisions.changes, *self._forget(seen, now))
        if (token := self.bucket.ready_at(now.ticks) - now.ticks) > 0:
            self._beat(now)
            return min(token, self.settings.lease / LOOKS_PER_LEASE)
        due = self._commit(self._refusals.allowed(changes, now.ticks), seen, now)
        if due is None and (tags := self._refusals.allowed(decisions.tags, now.ticks)):
            token = self.bucket.ready_at(now.ticks) - now.ticks
            due = token if token > 0 else self._commit(tags, seen, now)
        if due is None and not self.only:
            due = self._others(world, seen, now)
        self._beat(now)
        return min(_earliest(due, decisions, self._refusals, now), self.settings.lease / LOOKS_PER_LEASE)

    def _others(self, world: World, seen: Observation, now: Moment) -> float | None:
        """What comes behind all decisions: triggers, and the archive."""
        pushes = self.pushes
        due = self._trigger(world, seen, now)
        unsettled = bool(seen.seen and seen.seen.made)  # a run that left before it counts as seen would come again
        if self.pushes == pushes and not unsettled and self.archive.turn(world, seen, self.settings.kept, now):
            self.bucket = self.bucket.take(now.ticks)
        return due

    def _trigger(self, world: World, seen: Observation, now: Moment) -> float | None:
        """Make the runs that triggers start. Whatever goes wrong with them waits by itself."""
        token = self.bucket.ready_at(now.ticks) - now.ticks
        if token > 0:
            return token
        changes = self.triggers.turn(world, seen, self.settings, now)
        if changes:
            try:
                result = self._push(changes, seen, now)
            except DstackError as error:
                self.triggers.failed(error, now)
            else:
                self.triggers.pushed(result, now)
                if result.won:
                    return 0.0
        due = self.triggers.next_at(now)
        return None if due is None else max(0.0, due - now.ticks)

    def _configure(self, seen: Observation, now: Moment) -> None:
        """A broken config.yaml is told, and the settings before it stay."""
        try:
            self.settings = overlaid(parse_settings(seen.config), self.personal)
        except Invalid as error:
            self._trouble.tell("settings", f"the settings before stay in force: {error}")
        else:
            self._trouble.over("settings", "the shared settings can be read again")
        pace = FORGE_CONTROLLER if self.settings.throttle else self._pace
        self.bucket = self.bucket.paced(*pace, now.ticks)

    def _world(self, seen: Observation, now: Moment) -> World:
        lease = self.settings.lease
        judged = self.trust.judged(self._viewer.views(seen), seen, self.settings)
        runs = judged.runs
        if judged.problem:
            self._trouble.tell("trust", judged.problem)
        else:
            self._trouble.over("trust", "runs can be verified again")
        self.runs = len(runs)
        pulses = self.pulse.heartbeats(frozenset(registration.store for registration in seen.runners.values()))
        sight = Sight(
            registrations=seen.runners,
            heartbeats=pulses.heartbeats,
            assignments=seen.assignments,
            away=pulses.away,
        )
        self._watch = watch(self._watch, sight, lease=lease, now=now.ticks)
        self._absences = self._absences.seen(seen, now.ticks)
        self._settled = _settled(runs, self._settled, now.ticks)
        held = (key for one in seen.assignments.values() for key in one.attempts)
        self._opened = {key: self._opened.get(key, now.ticks) for key in held}
        return World(
            repository=seen.repository or "",
            store=self.settings.store_url or self.store,
            stores=self.settings.stores,
            tags={tag: oid for ref, oid in seen.refs.items() if (tag := refs.parse_tag(ref))},
            runs=runs,
            runners={
                name: RunnerView(registration=registration, watched=self._watch.runners[name])
                for name, registration in seen.runners.items()
                if name in self._watch.runners
            },
            assignments=seen.assignments,
            kept=self._absences.kept(lease, now.ticks) | judged.held,
            settled=self._settled,
            opened=self._opened,
            entropy=self.entropy(),
            lease=lease,
            interval=self.bucket.interval,
            only=self.only,
            settled_in=now.ticks - (self.began or 0.0) >= lease,
        )

    def _forget(self, seen: Observation, now: Moment) -> tuple[Change, ...]:
        if self.only:
            return ()
        beats = [watched.heartbeat for watched in self._watch.runners.values() if watched.heartbeat]
        held = [key for beat in beats for key in beat.attempts]
        return self._absences.forgotten(seen, held, self.settings.lease, now.ticks)

    def _commit(self, changes: tuple[Change, ...], seen: Observation, now: Moment) -> float | None:
        pushed = self._push(changes, seen, now) if changes else _NOTHING_TO_DO
        if pushed.won:
            self._backoff = Backoff()
            self._accepted(changes, now)
            return None
        if Outcome.LOST in pushed.outcomes.values():
            self._backoff = self._backoff.after_conflict(now.ticks, self.jitter())
            return self._backoff.until - now.ticks
        return self._narrow(changes, seen, now, pushed)

    def _accepted(self, changes: tuple[Change, ...], now: Moment) -> None:
        self._refusals.forget(changes)
        _log(changes)
        self._reuse.accepted(changes, now)

    def _narrow(self, changes: tuple[Change, ...], seen: Observation, now: Moment, pushed: Pushed) -> float | None:
        """A rule or a lock refused the turn: send its independent parts again; a part that fails waits alone."""
        groups = independent_groups(changes)
        for group in groups:
            result = self._push(tuple(group), seen, now) if len(groups) > 1 else pushed
            if result.won:
                self._accepted(tuple(group), now)
            elif Outcome.LOST not in result.outcomes.values():
                self._refusals.add(group, now.ticks, self.jitter())
                reasons = "; ".join(sorted(set(result.reasons.values()))) or "no reason given"
                LOG.error("the state remote refuses %s: %s", ", ".join(sorted(result.outcomes)), reasons)
        return 0.0

    def _push(self, changes: tuple[Change, ...], seen: Observation, now: Moment) -> Pushed:
        self.bucket = self.bucket.take(now.ticks)
        self.pushes += 1
        return self.ledger.commit(changes, seen, atomic=True)

    def _beat(self, now: Moment) -> None:
        try:
            self.pulse.beat(now, self.settings.lease)
        except DstackError as error:
            self._trouble.tell("heartbeat", f"this controller's heartbeat can't be written: {error}")
        else:
            self._trouble.over("heartbeat", "this controller's heartbeat can be written again")

    def _later(self, now: Moment, error: DstackError) -> float:
        """The remote is away, or, where it isn't Unavailable, a person must act: it is tried again all the same."""
        self.failure, self.failures = str(error), self.failures + 1
        self._backoff = self._backoff.after_outage(now.ticks, self.jitter(), error, self.longest)
        level = logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
        self._trouble.tell("repository", f"{error}; trying again", level=level)
        return self._backoff.until - now.ticks


def _settled(runs: tuple[RunView, ...], before: Mapping[str, float], now: float) -> dict[str, float]:
    """When each revoked attempt that a backoff follows was first seen."""
    keys = (
        attempt_key(planned.id, state.attempts[-1].number)
        for run in runs
        if run.plan and not run.state.finished
        for planned in run.plan.jobs
        if planned.job.retry and planned.job.retry.backoff
        for state in (run.state.job(planned.id),)
        if state.attempts and state.attempts[-1].revoked and not state.finished
    )
    return {key: before.get(key, now) for key in keys}


def _earliest(due: float | None, decisions: Decisions, refusals: Refusals, now: Moment) -> float:
    moments = [moment - now.ticks for moment in (decisions.next_at, refusals.next_at(now.ticks)) if moment is not None]
    again = [LOOK_AGAIN_SECONDS] if decisions.lookups or decisions.pointers else []
    return min((*moments, *again, *([due] if due is not None else [])), default=math.inf)


def _log(changes: tuple[Change, ...]) -> None:
    for change in changes:
        if isinstance(change, AppendNotes):
            for oid, events in change.events.items():
                for event in events:
                    LOG.info("%s: %s", change.key.name, event.message, extra={"run": str(change.key), "object": oid})
