"""Who is alive: what one observer concludes from heartbeats that change, by its own clock (DESIGN section 7.4)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dstack.model.observation import Assignments
from dstack.model.pool import Heartbeat, Registration

MISSING_LEASES = 2
POLL_LEASES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One runner instance. Times are the observer's monotonic seconds.

    `proven`: a change was seen, so it lives or lived within our sight. `missing`: attempts it should hold and doesn't
    name, with since when.
    """

    instance: str
    start: str
    heartbeat: Heartbeat | None
    changed: float
    polled: float
    proven: bool = False
    missing: Mapping[str, float] = field(default_factory=dict)

    def lost_at(self, lease: float) -> float:
        """When it counts as lost if nothing changes."""
        patience = (self.heartbeat.retry_after or 0.0) if self.heartbeat else 0.0
        return min(self.changed + lease, self.polled + POLL_LEASES * lease + patience)

    def is_lost(self, lease: float, now: float) -> bool:
        """Whether it counts as lost."""
        return now >= self.lost_at(lease)

    def gave_up(self, key: str, lease: float, now: float) -> bool:
        """Whether it has failed to name an attempt for too long."""
        return key in self.missing and now >= self.missing[key] + MISSING_LEASES * lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """All runners as watched; `looked` is when they were last looked at, None before the first time."""

    runners: Mapping[str, Watched] = field(default_factory=dict)
    looked: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen at one moment: `heartbeats` by (runner, instance); `away`: URLs of stores that could not be read."""

    registrations: Mapping[str, Registration]
    heartbeats: Mapping[tuple[str, str], Heartbeat]
    assignments: Mapping[str, Assignments]
    away: frozenset[str] = frozenset()


def watch(before: Watch, sight: Sight, *, lease: float, now: float) -> Watch:
    """Take in what is seen. Time in which heartbeats could not be read does not count against anybody."""
    # A gap between two looks (a suspended machine, a hanging store) is our own silence, not theirs.
    fresh = before.looked is None or now - before.looked > lease / 2
    runners = {
        name: _watched(before, registration, sight, now=now, fresh=fresh)
        for name, registration in sight.registrations.items()
    }
    return Watch(runners=runners, looked=now)


def _watched(watch: Watch, registration: Registration, sight: Sight, *, now: float, fresh: bool) -> Watched:
    name = registration.runner
    before = watch.runners.get(name)
    heartbeat = sight.heartbeats.get((name, registration.instance))
    if before is None or (before.instance, before.start) != (registration.instance, registration.start):
        return Watched(
            instance=registration.instance,
            start=registration.start,
            heartbeat=heartbeat,
            changed=now,
            polled=now,
            # A start that happened before our eyes is proof of life; one that we found is not.
            proven=before is not None or watch.looked is not None,
        )
    if registration.store in sight.away:
        return replace(before, changed=now, polled=now, missing={})
    beat = heartbeat != before.heartbeat
    polls = (heartbeat.polls if heartbeat else None) != (before.heartbeat.polls if before.heartbeat else None)
    missing = _missing(name, heartbeat, sight.assignments.get(name))
    return Watched(
        instance=before.instance,
        start=before.start,
        heartbeat=heartbeat,
        changed=now if beat or fresh else before.changed,
        polled=now if polls or fresh else before.polled,
        proven=before.proven or beat,
        missing={key: now if fresh else before.missing.get(key, now) for key in missing},
    )


def _missing(name: str, heartbeat: Heartbeat | None, assignments: Assignments | None) -> tuple[str, ...]:
    """Attempts in the very assignment commit that the heartbeat names, which it doesn't hold."""
    if heartbeat is None or assignments is None or heartbeat.assignment != assignments.oid or heartbeat.runner != name:
        return ()
    return tuple(key for key in assignments.attempts if key not in heartbeat.attempts)
