"""The sign that somebody deletes from the store just now: uploads over old objects wait until it can't hit them.

Between a look at an object's date and its deletion somebody may write it anew. The sign changes between two batches,
and a batch looks at what it deletes: once the sign has changed, no look from before can delete any more.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from dstack.model.errors import Conflict, Unavailable
from dstack.store.store import Store

FOLDER = "deleting/"
# A sign that stays the same for so long was left behind by somebody who was killed.
LEFT_BEHIND = timedelta(minutes=15)
# Who deletes stops before his sign counts as left behind.
BATCH_SECONDS = 300.0
_POLL_SECONDS = 0.5
_LIMIT = 1024


@dataclass(slots=True)
class Sign:
    """Ours, in a store. `renew` before each batch."""

    store: Store
    key: str = field(default_factory=lambda: f"{FOLDER}{secrets.token_hex(8)}")
    clock: Callable[[], float] = time.monotonic
    _batch: int = 0
    _renewed: float = 0.0

    def renew(self) -> None:
        """A new batch begins."""
        self._batch += 1
        self._renewed = self.clock()
        self.store.put(self.key, b"%d" % self._batch)

    def check(self) -> None:
        """Raises Unavailable where this batch takes so long that our sign may count as left behind."""
        if self.clock() - self._renewed > BATCH_SECONDS:
            msg = f"the store {self.store.url} is too slow to be freed safely: run `dstack prune` again later"
            raise Unavailable(msg)


@contextmanager
def alone(store: Store) -> Iterator[Sign]:
    """Be the only one who deletes. Raises Conflict where somebody else does."""
    sign = Sign(store)
    sign.renew()
    try:
        others = [key for key in _signs(store) if key != sign.key]
        if others:
            msg = f"somebody else is freeing the store {store.url} just now: try again when that is done"
            raise Conflict(msg)
        yield sign
    finally:
        store.delete(sign.key)


def settle(store: Store, pause: Callable[[float], None] = time.sleep) -> None:
    """Wait until nobody can delete for having looked before this call."""
    first = _signs(store)
    while first:
        now = _signs(store)
        first = {key: text for key, text in first.items() if now.get(key) == text}
        if first:
            pause(_POLL_SECONDS)


def _signs(store: Store) -> dict[str, bytes]:
    """What each sign says."""
    now = store.now()
    young = [head.key for head in store.list(FOLDER) if now - head.modified < LEFT_BEHIND]
    return {key: text for key in young if (text := store.get(key, limit=_LIMIT)) is not None}
