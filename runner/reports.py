"""What the remote has yet to be told, and when: `started` and `ended` events, gathered for few pushes. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from dstack.model.bucket import LOCAL, Bucket, Reach, runner_pace
from dstack.model.errors import Invalid
from dstack.model.events import Ended, Event, Started
from dstack.model.observation import AppendNotes, Observation
from dstack.model.pool import Phase
from dstack.model.refs import RunKey
from runner.duty import Duty
from runner.facts import pause
from runner.held import Held
from runner.outcome import beginning

RunnerEvent = Started | Ended

_STARTED_WAIT: Mapping[Reach, float | None] = {Reach.LOCAL: 0.15, Reach.NETWORK: 0.5, Reach.FORGE: None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One event about an attempt, for the note on its job."""

    key: str
    run: RunKey
    oid: str
    event: RunnerEvent

    @property
    def is_end(self) -> bool:
        """Whether it is the claim, that all wait for."""
        return isinstance(self.event, Ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often may be pushed: `interval` and `burst` of the bucket.

    `started_wait`: seconds that a `started` waits for company. None: it never is a push's only cause.
    """

    interval: float = LOCAL[0]
    burst: int = LOCAL[1]
    started_wait: float | None = 0.15


def pace_of(reach: Reach) -> Pace:
    """How often may be pushed to a remote reached so."""
    interval, burst = runner_pace(reach)
    return Pace(interval=interval, burst=burst, started_wait=_STARTED_WAIT[reach])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushing:
    """When the next push may be. `refused`: runs whose note was not won, with tries and when to try again (ticks)."""

    pace: Pace
    bucket: Bucket
    refused: Mapping[RunKey, tuple[int, float]] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)

    def paced(self, pace: Pace, now: float) -> "Pushing":
        """With another pace from now on."""
        if pace == self.pace:
            return self
        return replace(self, pace=pace, bucket=self.bucket.paced(pace.interval, pace.burst, now))

    def due_at(self, reports: Iterable[Report], now: float) -> float | None:
        """When these should be pushed; None where nothing needs to be."""
        times = [moment for one in reports if (moment := self._due(one, now)) is not None]
        return max(min(times), self.bucket.ready_at(now)) if times else None

    def allowed(self, reports: Iterable[Report], now: float) -> tuple[Report, ...]:
        """Those that go with a push now."""
        return tuple(one for one in reports if self._again(one.run) <= now)

    def seen(self, reports: Iterable[Report], now: float) -> "Pushing":
        """Remember since when each has been waiting."""
        since = {one.key: self.since.get(one.key, now) for one in reports if not one.is_end}
        return self if since == self.since else replace(self, since=since)

    def pushed(self, now: float) -> "Pushing":
        """A token less."""
        return replace(self, bucket=self.bucket.take(now))

    def refuse(self, runs: Iterable[RunKey], now: float) -> "Pushing":
        """Their notes were not won, or it isn't known."""
        refused = dict(self.refused)
        for run in runs:
            tries = refused.get(run, (0, 0.0))[0] + 1
            refused[run] = (tries, now + pause(tries, str(run)))
        return replace(self, refused=refused)

    def won(self, runs: Iterable[RunKey]) -> "Pushing":
        """Their notes are written."""
        left = {run: tried for run, tried in self.refused.items() if run not in set(runs)}
        return self if len(left) == len(self.refused) else replace(self, refused=left)

    def _due(self, report: Report, now: float) -> float | None:
        if report.is_end:
            return self._again(report.run)
        if self.pace.started_wait is None:
            return None
        return max(self._again(report.run), self.since.get(report.key, now) + self.pace.started_wait)

    def _again(self, run: RunKey) -> float:
        return self.refused.get(run, (0, 0.0))[1]


def pending(duty: Duty) -> tuple[Report, ...]:
    """What the remote is not known to have, in order. Of an attempt that is gone nothing is told."""
    return tuple(report for held in duty.held.values() if not held.gone for report in _reports(held))


def unwritten(reports: Iterable[Report], seen: Observation, runner: str) -> tuple[Report, ...]:
    """Those that are neither in the notes as read, nor about attempts that are no longer assigned."""
    return tuple(one for one in reports if not is_written(one, seen, runner) and _is_assigned(one, seen, runner))


def is_written(report: Report, seen: Observation, runner: str) -> bool:
    """Whether the note as read has it."""
    notes = seen.notes_of(report.run, runner)
    return notes is not None and any(_tells(event, report.event) for event in notes.on(report.oid).events)


def changes(reports: Iterable[Report], seen: Observation, runner: str) -> tuple[AppendNotes, ...]:
    """The lines to append, numbered behind those that are there: one change a run."""
    by_run: dict[RunKey, dict[str, list[Event]]] = {}
    for report in reports:
        events = by_run.setdefault(report.run, {}).setdefault(report.oid, [])
        notes = seen.notes_of(report.run, runner)
        lines = notes.on(report.oid).lines if notes else 0
        events.append(msgspec.structs.replace(report.event, seq=lines + len(events) + 1))
    return tuple(
        AppendNotes(key=run, writer=runner, events={oid: tuple(events) for oid, events in jobs.items()})
        for run, jobs in by_run.items()
    )


def _reports(held: Held) -> list[Report]:
    try:
        run = RunKey.from_text(held.attempt.run)
    except Invalid:
        return []
    events: list[RunnerEvent] = []
    if held.times.running and not held.started_known and held.phase is not Phase.WAITING:
        events.append(beginning(held))
    if held.ended and not held.ended_known:
        events.append(held.ended)
    return [Report(key=held.key, run=run, oid=held.oid, event=event) for event in events]


def _tells(written: Event, event: RunnerEvent) -> bool:
    return (
        isinstance(written, Started | Ended)
        and type(written) is type(event)
        and (written.attempt, written.instance, written.nonce) == (event.attempt, event.instance, event.nonce)
    )


def _is_assigned(report: Report, seen: Observation, runner: str) -> bool:
    assignments = seen.assignments.get(runner)
    attempt = assignments.attempts.get(report.key) if assignments else None
    return attempt is not None and (attempt.instance, attempt.nonce) == (report.event.instance, report.event.nonce)
