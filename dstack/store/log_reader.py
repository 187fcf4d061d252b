"""Reads the log of one attempt while it grows: the next chunk a poll, several at once where there are many."""

from typing import NamedTuple

from dstack.model import keys
from dstack.model.errors import DstackError, Invalid
from dstack.store import parallel
from dstack.store.chunk import CHUNK_LIMIT, SYSTEM, Record, seq_of, unpack
from dstack.store.store import Store

POLL_BYTES = 8 * 1024 * 1024
# Where the next chunk is absent it is asked so often, then half as often, … whether later ones are there.
LISTING_AFTER, LISTING_EVERY = 10, 320
# So many chunks are fetched at once, of a log that is far ahead of its reader.
AHEAD = 8


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
        self._misses, self._listing = 0, LISTING_AFTER
        self._width = 0
        self.closed = False

    def poll(self, *, whole: bool = False) -> Batch:
        """What is new; at most some MiB a call, so call again at once while it gives records. The caller sleeps.

        `whole`: look now for what lies behind a missing chunk, where nobody will poll again. Raises as a store, but not
        before it has given what it has.
        """
        found: list[Record] = []
        try:
            while not self.closed and sum(len(record.data) for record in found) < POLL_BYTES:
                if not self._look(found, whole=whole):
                    break
        except DstackError:
            if not found:
                raise
        return Batch(tuple(found), self.closed)

    def _look(self, found: list[Record], *, whole: bool) -> bool:
        """Add what comes next; whether there may be more."""
        for answer in self._fetched(range(self._seq, self._seq + max(1, self._width))):
            if answer is None:
                self._width = 0
                return self._skip(whole=whole)
            if isinstance(answer, DstackError) and not isinstance(answer, Invalid):
                self._width = 0
                raise answer
            found += self._taken(answer)
            if self.closed:
                return False
        # The second is asked for alone: mostly there is none, and a reader that waits asks for no more than it must.
        self._width = min(max(1, 2 * self._width), AHEAD)
        return True

    def _fetched(self, seqs: range) -> list[bytes | DstackError | None]:
        """The objects, in order, each with its own error."""
        answers: dict[int, bytes | DstackError | None] = {}

        def fetch(seq: int) -> None:
            try:
                answers[seq] = self._store.get(keys.chunk(self._prefix, seq), limit=CHUNK_LIMIT)
            except DstackError as error:
                answers[seq] = error

        parallel.each(seqs, fetch, width=len(seqs))
        return [answers[seq] for seq in seqs]

    def _taken(self, answer: bytes | DstackError) -> list[Record]:
        """The records of the chunk that comes next, or what is wrong with it."""
        try:
            if isinstance(answer, DstackError):
                raise answer
            chunk = unpack(answer, self._seq)
        except Invalid as error:
            told = self._told(f"part {self._seq} of this log can't be read: {error}")
            self._seq += 1
            return told
        told = self._gap(chunk.header.offset)
        self._seq += 1
        self._misses, self._listing = 0, LISTING_AFTER
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

    def _skip(self, *, whole: bool) -> bool:
        """A chunk is absent: not yet written, unless there are later ones. Their offsets tell how much is lost."""
        self._misses += 1
        if not whole and self._misses < self._listing:
            return False
        self._misses, self._listing = 0, min(2 * self._listing, LISTING_EVERY)
        after = keys.chunk(self._prefix, self._seq - 1) if self._seq else ""
        later = (seq_of(head.key) for head in self._store.list(f"{self._prefix}/", after=after))
        first = next((seq for seq in later if seq is not None), None)
        if first is None:
            return False
        self._seq = first
        return True

    def _told(self, text: str) -> list[Record]:
        return [Record(SYSTEM, self._at, f"[dstack: {text}]\n".encode())]
