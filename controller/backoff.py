"""How long to wait after trouble: growing, bounded, jittered, so that two controllers don't collide for ever."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dstack.model import patience
from dstack.model.groups import independent_groups
from dstack.model.observation import Change

CONFLICT_SECONDS = 0.02
MAX_CONFLICT_SECONDS = 5.0
OUTAGE_SECONDS = 0.75
REFUSAL_SECONDS = 1.0
MAX_REFUSAL_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """`until` in ticks; `failures` in a row."""

    failures: int = 0
    until: float = 0.0

    def after_conflict(self, now: float, jitter: float) -> "Backoff":
        """Another controller was faster: observe again soon."""
        return self._next(now, jitter, CONFLICT_SECONDS, MAX_CONFLICT_SECONDS)

    def after_outage(self, now: float, jitter: float, error: Exception, longest: float | None = None) -> "Backoff":
        """The remote is away, asks for patience, or waits for a person: forges ban who asks often.

        `longest`: see `patience.pause`.
        """
        wait = patience.pause(self.failures + 1, jitter, error, first=OUTAGE_SECONDS, longest=longest)
        return Backoff(failures=self.failures + 1, until=now + wait)

    def after_refusal(self, now: float, jitter: float) -> "Backoff":
        """A rule of the remote stands in the way until a person acts; a lock, until it is gone."""
        return self._next(now, jitter, REFUSAL_SECONDS, MAX_REFUSAL_SECONDS)

    def _next(self, now: float, jitter: float, first: float, most: float) -> "Backoff":
        seconds = min(most, first * 2.0 ** min(self.failures, 16)) * (0.5 + jitter / 2)
        return Backoff(failures=self.failures + 1, until=now + seconds)


@dataclass(slots=True)
class Refusals:
    """Refs that the remote refused to change, and when each may be tried again."""

    refs: dict[str, Backoff] = field(default_factory=dict)

    def add(self, changes: Iterable[Change], now: float, jitter: float) -> None:
        """These were refused together."""
        for change in changes:
            self.refs[change.ref] = self.refs.get(change.ref, Backoff()).after_refusal(now, jitter)

    def forget(self, changes: Iterable[Change]) -> None:
        """These were accepted."""
        for change in changes:
            self.refs.pop(change.ref, None)

    def allowed(self, changes: Sequence[Change], now: float) -> tuple[Change, ...]:
        """Leave out every independent group with a ref that must wait."""
        waiting = {ref for ref, backoff in self.refs.items() if now < backoff.until}
        if not waiting:
            return tuple(changes)
        return tuple(
            change
            for group in independent_groups(changes)
            if not waiting & {member.ref for member in group}
            for change in group
        )

    def next_at(self, now: float) -> float | None:
        """When the next one may be tried, in ticks."""
        return min((backoff.until for backoff in self.refs.values() if backoff.until > now), default=None)
