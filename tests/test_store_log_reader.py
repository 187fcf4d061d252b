import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import strategies as st

from dstack.model import keys
from dstack.model.errors import Unavailable
from dstack.store.chunk import CHUNK_BYTES, CHUNK_LIMIT, SYSTEM, Record, pack, seq_of
from dstack.store.log_reader import AHEAD, LISTING_AFTER, LogReader
from dstack.store.log_writer import LogWriter
from dstack.store.memory import MemoryStore
from dstack.store.store import Head, Store

PREFIX = "logs/run.0123456789ab/0123456789ab/1"
RECORDS = st.lists(
    st.builds(Record, st.integers(1, 3), st.floats(0, 4e9).map(lambda at: round(at, 3)), st.binary(min_size=1)),
    max_size=20,
)


def output(records: Sequence[tuple[int, float, bytes]]) -> bytes:
    return b"".join(data for _, _, data in records)


def whole(store: Store) -> tuple[bytes, bool]:
    reader = LogReader(store, PREFIX)
    read = b""
    while (batch := reader.poll(whole=True)).records:
        read += output(batch.records)
    return read, batch.closed


def written(*parts: bytes, close: bool = True) -> MemoryStore:
    store = MemoryStore()
    writer = LogWriter(store, PREFIX)
    for part in parts:
        writer.append([(1, 1.0, part)])
        writer.flush()
    if close:
        writer.close()
    return store


def test_a_reader_follows_with_one_look_a_poll() -> None:
    looks: list[str] = []

    class Counting(MemoryStore):
        def get(self, key: str, *, limit: int) -> bytes | None:
            looks.append(key)
            return super().get(key, limit=limit)

    store = Counting()
    reader = LogReader(store, PREFIX)
    writer = LogWriter(store, PREFIX)
    for number in range(3):
        assert reader.poll() == ((), False)
        writer.append([(1, 1.0, b"%d" % number)])
        writer.flush()
        looks.clear()
        assert output(reader.poll().records) == b"%d" % number
        assert len(looks) == 2
    writer.close()
    assert reader.poll() == ((), True)
    looks.clear()
    assert reader.poll() == ((), True)
    assert looks == []


@pytest.mark.parametrize("missing", [(0,), (1,), (1, 2), (0, 1, 2)])
def test_a_missing_chunk_is_told(missing: tuple[int, ...]) -> None:
    store = written(b"zero", b"one", b"two", b"three")
    for seq in missing:
        store.delete(keys.chunk(PREFIX, seq))
    parts = [b"zero", b"one", b"two", b"three"]
    lost = sum(len(parts[seq]) for seq in missing)
    told = b"[dstack: %d bytes of this log are missing before part %d]\n" % (lost, missing[-1] + 1)
    for seq in missing:
        parts[seq] = b""
    parts[missing[-1]] = told
    assert whole(store) == (b"".join(parts), True)


def test_a_follower_looks_behind_a_missing_chunk_after_a_while() -> None:
    store = written(b"zero", b"one", b"two")
    store.delete(keys.chunk(PREFIX, 1))
    reader = LogReader(store, PREFIX)
    assert output(reader.poll().records) == b"zero"
    batches = [reader.poll() for _ in range(LISTING_AFTER)]
    told = [record for batch in batches for record in batch.records]
    assert told[0] == Record(SYSTEM, 1.0, b"[dstack: 3 bytes of this log are missing before part 2]\n")
    assert told[1].data == b"two"
    assert reader.closed


@pytest.mark.parametrize("data", [b"", b"{", b"{}\n", b"x" * (CHUNK_LIMIT + 1), b"[" * 100_000])
def test_a_broken_chunk_is_told(data: bytes) -> None:
    store = written(b"zero", b"one", b"two")
    store.put(keys.chunk(PREFIX, 1), data)
    read, closed = whole(store)
    assert closed
    assert read.startswith(b"zero[dstack: part 1 of this log can't be read: ")
    assert read.endswith(b"[dstack: 3 bytes of this log are missing before part 2]\ntwo")


def test_bytes_that_come_twice_are_told() -> None:
    store = written(b"zero", close=False)
    store.put(keys.chunk(PREFIX, 1), pack(1, 2, [Record(1, 1.0, b"ro!")], closing=True))
    assert whole(store) == (b"zero[dstack: 2 bytes of this log come twice before part 1]\nro!", True)


def test_a_reader_may_begin_later() -> None:
    reader = LogReader(written(b"zero", b"one", b"two"), PREFIX, seq=2)
    assert output(reader.poll().records) == b"two"
    assert reader.closed


def test_a_large_log_comes_in_bounded_batches() -> None:
    store = written(*[b"x" * CHUNK_BYTES] * 20)
    reader = LogReader(store, PREFIX)
    sizes = []
    while not reader.closed:
        sizes.append(len(output(reader.poll().records)))
    assert sum(sizes) == 20 * CHUNK_BYTES
    assert max(sizes) <= 9 * CHUNK_BYTES


def test_a_store_that_goes_away_in_the_middle_costs_no_line() -> None:
    class Flaky(MemoryStore):
        """Answers one of three."""

        asked = 0

        def get(self, key: str, *, limit: int) -> bytes | None:
            self.asked += 1
            if self.asked % 3:
                msg = "away"
                raise Unavailable(msg)
            return super().get(key, limit=limit)

    parts = [b"%d\n" % number for number in range(50)]
    store, read = Flaky(), b""
    writer = LogWriter(store, PREFIX)
    for part in parts:
        writer.append([(1, 1.0, part)])
        writer.flush()
    writer.close()
    reader, failures = LogReader(store, PREFIX), 0
    while not reader.closed:
        try:
            read += output(reader.poll(whole=True).records)
        except Unavailable:
            failures += 1
    assert read == b"".join(parts)
    assert failures


def test_of_a_log_that_is_there_many_chunks_are_fetched_at_once() -> None:
    waiting, together = threading.Barrier(AHEAD), []

    class Together(MemoryStore):
        def get(self, key: str, *, limit: int) -> bytes | None:
            if AHEAD <= (seq_of(key) or 0) < 2 * AHEAD:
                waiting.wait(20)
                together.append(key)
            return super().get(key, limit=limit)

    store = Together()
    writer = LogWriter(store, PREFIX)
    for number in range(3 * AHEAD):
        writer.append([(1, 1.0, b"%d\n" % number)])
        writer.flush()
    writer.close()
    assert whole(store) == (b"".join(b"%d\n" % number for number in range(3 * AHEAD)), True)
    assert len(together) == AHEAD


def test_who_waits_for_a_quiet_log_asks_ever_less_what_lies_behind() -> None:
    listings = []

    class Counting(MemoryStore):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
            listings.append(prefix)
            return super().list(prefix, after=after)

    reader = LogReader(Counting(), PREFIX)
    for _ in range(1000):
        assert reader.poll() == ((), False)
    assert 5 <= len(listings) <= 8
