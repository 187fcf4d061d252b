"""Runs whose branch is gone: deleted by hand means abort, but only when it stays away (DESIGN section 4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dstack.model import refs
from dstack.model.observation import DeleteRef, Observation
from dstack.model.refs import RunKey
from dstack.model.views import our_run

MIN_POLLS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Since when (ticks) and in how many polls a run's branch has been missing."""

    since: float
    polls: int = 1

    def is_certain(self, lease: float, now: float) -> bool:
        """Whether it is taken as deleted."""
        return self.polls >= MIN_POLLS and now - self.since >= lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Absences:
    """All runs that have notes or assignments, and no branch that can be read."""

    runs: Mapping[RunKey, Absence] = field(default_factory=dict)

    def seen(self, observation: Observation, now: float) -> "Absences":
        """Take in a poll."""
        there = {record.key for name in observation.runs if (record := our_run(observation, name))}
        missing = _mentioned(observation) - there
        return Absences(runs={key: _again(self.runs.get(key), now) for key in missing})

    def kept(self, lease: float, now: float) -> frozenset[str]:
        """Runs whose attempts go on for now, as the text of their keys."""
        return frozenset(str(key) for key, absence in self.runs.items() if not absence.is_certain(lease, now))

    def forgotten(
        self, observation: Observation, held: Iterable[str], lease: float, now: float
    ) -> tuple[DeleteRef, ...]:
        """The note refs of deleted runs that no heartbeat (`held`: `<job>.<attempt>`) mentions any more."""
        busy = {key.partition(".")[0] for key in held}
        gone = [key for key, absence in self.runs.items() if absence.is_certain(lease, now)]
        return tuple(
            DeleteRef(ref=refs.note(key, writer))
            for key in gone
            if key.name not in observation.runs
            and not any(busy & set(notes.jobs) for notes in observation.notes.get(key, {}).values())
            for writer in observation.notes.get(key, {})
        )


def _mentioned(observation: Observation) -> set[RunKey]:
    keys = set(observation.notes)
    for assignments in observation.assignments.values():
        keys.update(RunKey.from_text(attempt.run) for attempt in assignments.attempts.values())
    return keys


def _again(before: Absence | None, now: float) -> Absence:
    return replace(before, polls=before.polls + 1) if before else Absence(since=now)
