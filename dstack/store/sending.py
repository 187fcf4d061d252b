"""Sends objects to the store under their digests, each once, and none that the store has and that is fresh."""

import tempfile
import threading
from datetime import timedelta

from dstack.model import keys
from dstack.store.reading import PIECE, ChangedError, Content, Verified, Window, digest
from dstack.store.store import Source, Store
from dstack.store.tally import Meter

# An object this young is safe from prune until the manifest that names it is written. What is condemned is much older:
# it is sent again, and its new date takes it off the list (`dstack.model.pruning.AGE`).
FRESH = timedelta(days=1)


class Sender:
    """One save's sending. Safe for many threads."""

    def __init__(self, store: Store) -> None:
        """Nothing is known of what the store has."""
        self._store = store
        self._lock = threading.Lock()
        self._claimed: set[str] = set()
        self._fresh: set[str] = set()
        self.replaces = False  # something old was there: prune may be about to delete it

    def has(self, content: Content) -> bool:
        """Whether the store has this object, fresh, or it is being sent by now."""
        key = keys.content(content.sha256)
        return key in self._claimed or self._is_fresh(key, content.size)

    def send(self, content: Content, data: bytes | Source, meter: Meter) -> None:
        """See to it that the store has this object, or will have when all threads are done."""
        key = keys.content(content.sha256)
        if self._claim(key) and not self._is_fresh(key, content.size):
            try:
                self._store.put(key, data, sent=meter.add)
            except BaseException:
                # It isn't there: a file that changes and changes back is sent under this very digest again.
                self._give_up(key)
                raise
        meter.finish()

    def put(self, key: str, data: bytes) -> None:
        """Likewise for an object that isn't content."""
        if not self._is_fresh(key, len(data)):
            self._store.put(key, data)

    def unproven(self, objects: dict[str, int]) -> dict[str, int]:
        """Those of the objects, with their sizes, that the store hasn't been seen to have."""
        return {key: size for key, size in objects.items() if key not in self._fresh}

    def _claim(self, key: str) -> bool:
        with self._lock:
            first = key not in self._claimed
            self._claimed.add(key)
            return first

    def _give_up(self, key: str) -> None:
        with self._lock:
            self._claimed.discard(key)

    def _is_fresh(self, key: str, size: int) -> bool:
        if key in self._fresh:
            return True
        head = self._store.head(key)
        fresh = head is not None and head.size == size and self._store.now() - head.modified < FRESH
        self.replaces |= head is not None and not fresh
        if fresh:
            self._fresh.add(key)
        return fresh


def send_file(sender: Sender, source: Verified, content: Content, meter: Meter) -> Content:
    """Send a file whose digest was taken; one that has changed since, as it is now, from a private copy."""
    try:
        sender.send(content, source, meter)
    except ChangedError:
        return _send_copy(sender, source.window, meter)
    return content


def _send_copy(sender: Sender, window: Window, meter: Meter) -> Content:
    def check() -> None:
        meter.add(0)

    with tempfile.TemporaryFile() as copy:
        size = 0
        while piece := window.read_some(size, PIECE):
            copy.write(piece)
            size += len(piece)
            check()
        copy.flush()
        reading, source = digest(copy.fileno(), check)
        sender.send(reading.content, source, meter)
        return reading.content
