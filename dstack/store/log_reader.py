"""Reads the log of one attempt while it grows, one look at the next chunk a poll; gaps are made visible."""

from typing import NamedTuple

from dstack.model import keys
from dstack.model.errors import Invalid
from dstack.store.chunk import CHUNK_LIMIT, SYSTEM, Record, seq_of, unpack
from dstack.store.store import Store

POLL_BYTES = 8 * 1024 * 1024
# How often it is asked, where the next chunk is absent, whether later ones are there.
LISTING_EVERY = 10


class Batch(NamedTuple):
    """What a poll found. `closed`: the log is complete."""

    records: tuple[Record, ...]
    closed: bool


class LogReader:
    """Reads a log as far as it has come. What is missing or damaged is told in records of the stream SYSTEM."""

    def __init__(self, store: Store, prefix: str, *, seq: int = 0) -> None:
        """`prefix` of `keys.log`. `seq`: the first chunk to read."""
        self._store = store
        self._prefix = prefix
        self._seq = seq
        self._offset = 0 if seq == 0 else None
        self._at = 0.0
        self._misses = 0
        self.closed = False

    def poll(self, *, whole: bool = False) -> Batch:
        """What is new; at most some MiB a call, so call again at once while it gives records. The caller sleeps.

        `whole`: look now for what lies behind a missing chunk, where nobody will poll again. Raises as a store.
        """
        found: list[Record] = []
        size = 0
        while not self.closed and size < POLL_BYTES:
            records = self._next(whole=whole)
            if records is None:
                break
            found += records
            size += sum(len(record.data) for record in records)
        return Batch(tuple(found), self.closed)

    def _next(self, *, whole: bool) -> list[Record] | None:
        try:
            data = self._store.get(keys.chunk(self._prefix, self._seq), limit=CHUNK_LIMIT)
            if data is None:
                return self._skip(whole=whole)
            chunk = unpack(data, self._seq)
        except Invalid as error:
            told = self._told(f"part {self._seq} of this log can't be read: {error}")
            self._seq += 1
            return told
        told = self._gap(chunk.header.offset)
        self._seq += 1
        self._misses = 0
        self._offset = chunk.header.offset + chunk.header.size
        self._at = max([self._at, *(record.at for record in chunk.records)])
        self.closed = chunk.header.closing
        return [*told, *chunk.records]

    def _gap(self, offset: int) -> list[Record]:
        if self._offset is None or offset == self._offset:
            return []
        lost = offset - self._offset
        text = f"{lost} bytes of this log are missing" if lost > 0 else f"{-lost} bytes of this log come twice"
        return self._told(f"{text} before part {self._seq}")

    def _skip(self, *, whole: bool) -> list[Record] | None:
        """A chunk is absent: not yet written, unless there are later ones. Their offsets tell how much is lost."""
        self._misses += 1
        if not whole and self._misses % LISTING_EVERY:
            return None
        after = keys.chunk(self._prefix, self._seq - 1) if self._seq else ""
        later = (seq_of(head.key) for head in self._store.list(f"{self._prefix}/", after=after))
        first = next((seq for seq in later if seq is not None), None)
        if first is None:
            return None
        self._seq = first
        return []

    def _told(self, text: str) -> list[Record]:
        return [Record(SYSTEM, self._at, f"[dstack: {text}]\n".encode())]
