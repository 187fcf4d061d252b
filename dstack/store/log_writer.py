"""Writes the log of one attempt as a row of chunks; goes on after a crash where the store shows it ended."""

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dstack.model import keys
from dstack.model.errors import Invalid
from dstack.store.chunk import CHUNK_BYTES, CHUNK_LIMIT, CHUNK_RECORDS, Header, Record, joined, pack, seq_of, unpack
from dstack.store.store import Store

QUICK_SECONDS = 0.3
BUSY_SECONDS = 0.8
STEADY_SECONDS = 60.0
SLOWEST_SECONDS = 30.0


def flush_after(running: float, chunks: int) -> float:
    """Seconds to gather output before the next chunk, of an attempt `running` so many seconds with `chunks` so far.

    A log may have a chunk a second in its first minute, then ever fewer, down to one in 30 s. Whoever has written less
    than that need not wait: a line after a silence is visible at once, however long the job runs.
    """
    slowest_from = STEADY_SECONDS * SLOWEST_SECONDS
    early = min(running, STEADY_SECONDS)
    growing = STEADY_SECONDS * math.log(min(max(running, STEADY_SECONDS), slowest_from) / STEADY_SECONDS)
    late = max(0.0, running - slowest_from) / SLOWEST_SECONDS
    if chunks <= early + growing + late:
        return QUICK_SECONDS
    return min(max(running / STEADY_SECONDS, BUSY_SECONDS), SLOWEST_SECONDS)


class _Pending(NamedTuple):
    """A chunk that was tried. It is kept as it is over a failed put, which may have arrived all the same."""

    data: bytes
    size: int
    closing: bool


class LogWriter:
    """The one writer of a log. What `append` took is kept until `flush` or `close` has stored it.

    After Unavailable the same call can be made again: nothing is lost or stored twice.
    """

    def __init__(self, store: Store, prefix: str, *, seq: int = 0, offset: int = 0, closed: bool = False) -> None:
        """`prefix` of `keys.log`; the rest says where an earlier writer ended (see `resume`)."""
        self._store = store
        self._prefix = prefix
        self.seq = seq
        self.offset = offset
        self.closed = closed
        self.buffered = 0
        self._records: deque[Record] = deque()
        self._pending: _Pending | None = None

    @classmethod
    def resume(cls, store: Store, prefix: str) -> "LogWriter":
        """Behind the last whole chunk in the store. Give it what follows `offset` bytes of output (`chunk.behind`)."""
        last = _last(store, prefix)
        if last is None:
            return cls(store, prefix)
        return cls(store, prefix, seq=last.seq + 1, offset=last.offset + last.size, closed=last.closing)

    @property
    def size(self) -> int:
        """Bytes of output taken so far, stored or not."""
        return self.offset + self.buffered

    @property
    def full(self) -> bool:
        """Whether there is a chunk's worth to flush: take no more before."""
        return self.buffered >= CHUNK_BYTES or len(self._records) >= CHUNK_RECORDS

    def append(self, pieces: Iterable[tuple[int, float, bytes]]) -> None:
        """Take output: stream, time (seconds since the epoch), bytes. It is kept in memory."""
        if self.closed:
            msg = "the log is closed"
            raise ValueError(msg)
        for record in joined(pieces):
            self._records.append(record)
            self.buffered += len(record.data)

    def flush(self) -> None:
        """Store what was taken. Raises what the store raises."""
        while self._pending is not None or self._records:
            self._put(closing=False)

    def flush_full(self) -> None:
        """Store whole chunks; a rest that fills none is kept. Raises what the store raises."""
        while self._pending is not None or self.full:
            self._put(closing=False)

    def close(self) -> None:
        """Store the rest, and that this is all. Does nothing when closed already."""
        while not self.closed:
            self._put(closing=True)

    def _put(self, *, closing: bool) -> None:
        if self._pending is None:
            self._pending = self._cut(closing=closing)
        self._store.put(keys.chunk(self._prefix, self.seq), self._pending.data)
        self.seq += 1
        self.offset += self._pending.size
        self.buffered -= self._pending.size
        self.closed = self._pending.closing
        self._pending = None

    def _cut(self, *, closing: bool) -> _Pending:
        taken: list[Record] = []
        size = 0
        while self._records and len(taken) < CHUNK_RECORDS and size < CHUNK_BYTES:
            stream, at, data = self._records.popleft()
            fits, rest = data[: CHUNK_BYTES - size], data[CHUNK_BYTES - size :]
            if rest:
                self._records.appendleft(Record(stream, at, rest))
            taken.append(Record(stream, at, fits))
            size += len(fits)
        last = closing and not self._records
        return _Pending(pack(self.seq, self.offset, taken, closing=last), size, last)


def _last(store: Store, prefix: str) -> Header | None:
    """The header of the last chunk that can be read; what comes behind it is written again."""
    for head in reversed(list(store.list(f"{prefix}/"))):
        seq = seq_of(head.key)
        try:
            data = None if seq is None else store.get(head.key, limit=CHUNK_LIMIT)
            if seq is not None and data is not None:
                return unpack(data, seq).header
        except Invalid:
            continue
    return None
