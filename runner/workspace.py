"""The pool of work folders: an attempt gets one brought to its snapshot, and gives it back for the next."""

import shutil
import threading
from pathlib import Path

from dstack.model.job import Reason
from dstack.model.refs import RunKey
from runner.codecache import CodeCache
from runner.executor import StartFailed
from runner.slot import Damaged, Slot

KEEP = 4


class Workspaces:
    """Slots below `folder`. At most `keep` free ones stay on disk. Safe for several threads, one runner at a time.

    After a restart, `claim` the trees of the attempts that were adopted before anything is checked out.
    """

    def __init__(self, folder: Path, codecache: CodeCache, *, keep: int = KEEP) -> None:
        """Find the slots of earlier runs of the runner; what state they are in is seen when they are taken."""
        self._slots, self._code, self._keep = folder / "slots", codecache, keep
        self._lock = threading.Lock()
        self._used: dict[Path, Slot] = {}
        self._slots.mkdir(parents=True, exist_ok=True)
        found = sorted(self._slots.iterdir(), key=lambda path: path.stat().st_mtime)
        self._free = [Slot(path) for path in found]

    def claim(self, tree: Path) -> None:
        """Leave this tree to the attempt that had it before a restart."""
        with self._lock:
            for slot in [slot for slot in self._free if slot.tree == tree]:
                self._free.remove(slot)
                self._used[tree] = slot

    def checkout(self, key: RunKey, snapshot: str, include: tuple[str, ...] = ()) -> Path:
        """A folder with the snapshot, or only those of its files that globs name (repo.include), and nothing else.

        Raises StartFailed; Unavailable while the remote is away.
        """
        self._code.fetch(key, snapshot)
        slot = self._take(snapshot)
        try:
            self._fill(slot, key, snapshot, include)
        except BaseException:
            self.release(slot.tree)
            raise
        return slot.tree

    def release(self, tree: Path) -> None:
        """Take the folder back. What can't be cleaned is moved aside, and its disk space given back where possible."""
        slot = self._used.get(tree)
        if slot is None:
            return
        try:
            slot.free(self._code)
        except Damaged:
            slot.empty()
        with self._lock:
            del self._used[tree]
            self._free.append(slot)
            surplus = self._free[: -self._keep] if len(self._free) > self._keep else []
            self._free = self._free[len(surplus) :]
        for old in surplus:
            old.remove()

    def trim(self) -> None:
        """Give the disk space of free slots and of the cached code back."""
        with self._lock:
            for slot in self._free:
                slot.remove()
            self._free = []
        self._code.discard()

    def _take(self, snapshot: str) -> Slot:
        """A slot: best one that held this snapshot, or nothing; once there are enough, the one unused for longest."""
        with self._lock:
            same = [slot for slot in self._free if slot.snapshot == snapshot]
            blank = [slot for slot in self._free if not slot.snapshot]
            if same or blank:
                slot = (same or blank)[-1]
            elif len(self._free) >= self._keep:
                slot = self._free[0]
            else:
                slot = Slot(self._new_folder())
            if slot in self._free:
                self._free.remove(slot)
            self._used[slot.tree] = slot
            return slot

    def _new_folder(self) -> Path:
        taken = {slot.folder.name for slot in (*self._free, *self._used.values())}
        number = next(number for number in range(len(taken) + 1) if str(number) not in taken)
        folder = self._slots / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _fill(self, slot: Slot, key: RunKey, snapshot: str, include: tuple[str, ...]) -> None:
        """Fill the slot; where that fails begin it anew, and then the cache too."""
        for begin_anew in (slot.empty, self._code.discard):
            try:
                slot.fill(self._code, snapshot, include)
            except Damaged:
                begin_anew()
                self._code.fetch(key, snapshot)
            else:
                return
        try:
            slot.fill(self._code, snapshot, include)
        except Damaged as error:
            msg = f"the code can't be checked out on this runner: {error}"
            raise StartFailed(Reason.CHECKOUT, msg) from error
