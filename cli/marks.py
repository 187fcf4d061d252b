"""When a run on this machine's remote is worth a fetch: looks at the files of its refs, fifty times a second."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dstack.model import refs
from dstack.model.bucket import Reach
from dstack.model.refs import CONTROLLER, RunKey

POLL_SECONDS = 3.0
# A remote elsewhere can only be asked: seconds between two fetches of a command that follows a run.
AWAY_POLL_SECONDS = {Reach.NETWORK: 2.0, Reach.FORGE: 5.0}
CLAIM_SECONDS = 0.3

_Mark = tuple[str, int, int]


@dataclass(slots=True, kw_only=True)
class Marks:
    """`remote`: the git folder of a remote here; None: it is elsewhere. Without any change a poll is due all the same.

    The controller's note decides; what a runner claims can wait a moment, for the decision mostly follows at once.
    """

    remote: Path | None
    key: RunKey
    poll: float = POLL_SECONDS
    _woken: bool = False
    _seen: frozenset[_Mark] = frozenset()
    _polled: float | None = None
    _changed: float | None = None
    _latest: frozenset[_Mark] = field(default_factory=frozenset)

    def assume_new(self, now: float) -> None:
        """The run has just been made here: nobody can have written notes before, so those there are will be news."""
        self._seen = frozenset(mark for mark in self._look() if not mark[0].startswith("note "))
        self._polled = now

    def wake(self) -> None:
        """Something may have changed. From any thread."""
        self._woken = True

    def due(self, now: float) -> bool:
        """Whether to fetch, at `now` (monotonic seconds)."""
        if self._woken:
            return True
        self._latest = frozenset(self._look())
        new = self._latest ^ self._seen
        if self._polled is None or now >= self._polled + self.poll:
            return True
        if not new:
            self._changed = None
            return False
        if any(not _is_claim(name) for name, _, _ in new):
            return True
        self._changed = self._changed or now
        return now >= self._changed + CLAIM_SECONDS

    def taken(self, now: float) -> None:
        """What was last looked at is about to be fetched."""
        self._woken = False
        self._seen, self._polled, self._changed = self._latest, now, None

    def _look(self) -> list[_Mark]:
        if self.remote is None:
            return []
        notes = self.remote / refs.note(self.key, CONTROLLER)
        marks = [
            _mark("packed", self.remote / "packed-refs"),
            _mark("branch", self.remote / refs.run_branch(self.key.name)),
        ]
        with suppress(OSError):
            marks += [_mark(f"note {name}", notes.parent / name) for name in os.listdir(notes.parent)]  # noqa: PTH208 (quick)
        return marks


def _is_claim(name: str) -> bool:
    return name.startswith("note ") and name != f"note {CONTROLLER}"


def _mark(name: str, path: Path) -> _Mark:
    try:
        found = os.stat(path)  # noqa: PTH116 (quick)
    except OSError:
        return (name, 0, 0)
    return (name, found.st_mtime_ns, found.st_ino)
