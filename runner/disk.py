"""The disk guard: below a least of free space a runner begins nothing, and by itself goes on when there is more."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from dstack.model.units import size_text

LEAST, SHARE, MOST = 2**30, 0.05, 20 * 2**30
# So much more than the least must be free again: a runner on the edge would begin and stop for ever.
MARGIN = 1.1
MIB = 2**20
LOOK_SECONDS, SWEEP_SECONDS = 5.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes of a file system: free for us, and in all."""

    free: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`keep`: bytes to keep free; None: 5 % of the disk, within 1 GiB and 20 GiB. `disk` names it. Times in ticks.

    `pause`: why nothing is begun; empty while there is room. `sweep`: whether caches are to be removed now.
    """

    keep: int | None = None
    disk: str = "its disk"
    pause: str = ""
    look_at: float = 0.0
    sweep_at: float = 0.0
    sweep: bool = False

    def seen(self, space: Space | None, now: float) -> "Guard":
        """After a look; a disk that can't be asked is taken to have room."""
        later = now + LOOK_SECONDS
        if space is None or space.free >= self._least(space.total) * (MARGIN if self.pause else 1.0):
            return Guard(keep=self.keep, disk=self.disk, look_at=later)
        due = not self.pause or now >= self.sweep_at
        return Guard(
            keep=self.keep,
            disk=self.disk,
            pause=self.pause or f"{self.disk} is nearly full, {_text(space.free)} free of {_text(space.total)}",
            look_at=later,
            sweep_at=now + SWEEP_SECONDS if due else self.sweep_at,
            sweep=due,
        )

    def _least(self, total: int) -> float:
        return max(LEAST, min(MOST, SHARE * total)) if self.keep is None else self.keep


def is_another_disk(folder: str, known: Path) -> bool:
    """Whether the folder is on this machine, and on another file system than the known one."""
    try:
        return bool(folder) and Path(folder).stat().st_dev != known.stat().st_dev
    except (OSError, ValueError):
        return False


def space_of(folder: Path) -> Space | None:
    """Of the file system that holds the folder; None where it can't be asked."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Space(free=usage.free, total=usage.total)


def _text(size: int) -> str:
    unit = MIB if size < 10 * 2**30 else 2**30
    return size_text(size // unit * unit)
