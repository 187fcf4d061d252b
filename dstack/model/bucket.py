"""A token bucket: how often a process may push (DESIGN section 9). Pure: time comes in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Reach(StrEnum):
    """How far a state remote is: on this machine, on a server, or on a forge that throttles pushes."""

    LOCAL = "local"
    NETWORK = "network"
    FORGE = "forge"


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

    def paced(self, interval: float, burst: int, now: float) -> "Bucket":
        """The same bucket with another pace from now on; a debt stays, what had gathered is cut to the new burst."""
        if (interval, burst) == (self.interval, self.burst):
            return self
        grown = max(0, burst - self.burst)
        level = min(float(burst), self._level(now) + grown)
        return replace(self, interval=interval, burst=burst, level=level, at=now)

    def _level(self, now: float) -> float:
        return min(float(self.burst), self.level + max(0.0, now - self.at) / self.interval)


# By how the remote is reached; seconds between tokens, and the burst.
LOCAL = (0.1, 3)
NETWORK = (1.0, 3)
FORGE_RUNNER = (15.0, 2)
FORGE_CONTROLLER = (10.0, 3)

# Seconds between two looks of a daemon at the remote; files that change wake it earlier where the remote is local.
POLL_SECONDS: Mapping[Reach, float] = {Reach.LOCAL: 2.0, Reach.NETWORK: 2.0, Reach.FORGE: 5.0}

_OTHERS = {Reach.LOCAL: LOCAL, Reach.NETWORK: NETWORK}


def controller_pace(reach: Reach) -> tuple[float, int]:
    """Interval and burst of a controller's bucket."""
    return _OTHERS.get(reach, FORGE_CONTROLLER)


def runner_pace(reach: Reach) -> tuple[float, int]:
    """Interval and burst of a runner's bucket."""
    return _OTHERS.get(reach, FORGE_RUNNER)
