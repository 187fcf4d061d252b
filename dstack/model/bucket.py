"""A token bucket: how often a process may push (DESIGN section 9). Pure: time comes in."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """`interval`: seconds between tokens. `burst`: how many gather while nobody pushes. `level` as of `at` (ticks)."""

    interval: float
    burst: int
    level: float = 0.0
    at: float = 0.0

    @classmethod
    def full(cls, *, interval: float, burst: int, now: float) -> "Bucket":
        """A bucket as it is after a long rest."""
        return cls(interval=interval, burst=burst, level=float(burst), at=now)

    def ready_at(self, now: float) -> float:
        """When there is a token, in ticks; not after `now` where there is one already."""
        return now + max(0.0, 1.0 - self._level(now)) * self.interval

    def take(self, now: float) -> "Bucket":
        """One token less. Going below zero is allowed: a push that had to go at once is paid back."""
        return replace(self, level=self._level(now) - 1.0, at=now)

    def _level(self, now: float) -> float:
        return min(float(self.burst), self.level + max(0.0, now - self.at) / self.interval)


# By how the remote is reached; seconds between tokens, and the burst.
LOCAL = (0.1, 3)
NETWORK = (1.0, 3)
FORGE_RUNNER = (15.0, 2)
FORGE_CONTROLLER = (10.0, 3)
