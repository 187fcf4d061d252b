"""A store in memory, with the semantics of the others: for simulations and tests, and what must leave no trace."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import BinaryIO

from dstack.model.errors import Invalid, Unavailable
from dstack.store.key import split_key, split_prefix
from dstack.store.store import Head, Sent, Source, unwatched


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _never() -> bool:
    return False


class MemoryStore:
    """A `Store` in a dictionary. While `away()` is true, every call raises Unavailable."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = _utc_now,
        away: Callable[[], bool] = _never,
        url: str = "memory:",
    ) -> None:
        """`clock` gives aware UTC."""
        self.url = url
        self.width = 4
        self._clock = clock
        self._away = away
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    def seen_by(self, away: Callable[[], bool]) -> "MemoryStore":
        """The same objects, as seen by somebody for whom the store is away at other times."""
        view = MemoryStore(clock=self._clock, away=away, url=self.url)
        view._lock, view._objects = self._lock, self._objects
        return view

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        """See Store."""
        self._reach(key)
        content = data if isinstance(data, bytes) else data.read(0, data.size)
        sent(len(content))
        with self._lock:
            if if_absent and key in self._objects:
                return False
            self._objects[key] = (content, self._clock())
        return True

    def get(self, key: str, *, limit: int) -> bytes | None:
        """See Store."""
        self._reach(key)
        found = self._objects.get(key)
        if found is not None and len(found[0]) > limit:
            msg = f"{key} in the store {self.url} has more than the {limit} bytes accepted"
            raise Invalid(msg)
        return None if found is None else found[0]

    def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
        """See Store."""
        self._reach(key)
        found = self._objects.get(key)
        return None if found is None else io.BytesIO(found[0][start : None if size is None else start + size])

    def head(self, key: str) -> Head | None:
        """See Store."""
        self._reach(key)
        return self._head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        """See Store."""
        split_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        self._here()
        for key in keys:
            head = self._head(key)
            if head is not None:
                yield head

    def delete(self, key: str) -> None:
        """See Store."""
        self._reach(key)
        with self._lock:
            self._objects.pop(key, None)

    def now(self) -> datetime:
        """See Store: the clock it was given."""
        return self._clock()

    def _reach(self, key: str) -> None:
        split_key(key)
        self._here()

    def _here(self) -> None:
        if self._away():
            msg = f"the store {self.url} is away"
            raise Unavailable(msg, away=True)

    def _head(self, key: str) -> Head | None:
        found = self._objects.get(key)
        return None if found is None else Head(key, len(found[0]), found[1])
