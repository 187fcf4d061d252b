"""When those who wait are woken: at once, and in a storm ever more rarely. Pure: `now` in seconds of any clock."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FIRST_GAP = 0.1
LONGEST_GAP = 2.0

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Kept:
    sent: float = float("-inf")
    gap: float = FIRST_GAP
    pending: bool = False


@dataclass(slots=True)
class Gather(Generic[K]):
    """The first piece of news passes at once; what follows waits for a gap that doubles until it has been quiet."""

    _kept: dict[K, _Kept] = field(default_factory=dict)

    def add(self, key: K) -> None:
        """News came."""
        self._kept.setdefault(key, _Kept()).pending = True

    def due(self, now: float) -> list[K]:
        """Whom to wake now: each once, however much news there was."""
        found = [key for key, kept in self._kept.items() if kept.pending and now >= kept.sent + kept.gap]
        for key in found:
            kept = self._kept[key]
            quiet = now >= kept.sent + kept.gap + LONGEST_GAP
            kept.gap = FIRST_GAP if quiet else min(2 * kept.gap, LONGEST_GAP)
            kept.sent, kept.pending = now, False
        return found

    def next_at(self) -> float | None:
        """When `due` has something again; None if there is no news."""
        return min((kept.sent + kept.gap for kept in self._kept.values() if kept.pending), default=None)
