import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import keys
from dstack.model.errors import Unavailable
from dstack.store import chunk
from dstack.store.chunk import CHUNK_BYTES, CHUNK_LIMIT, Record, behind
from dstack.store.log_reader import LogReader
from dstack.store.log_writer import LogWriter, flush_after
from dstack.store.memory import MemoryStore
from dstack.store.store import Sent, Source, Store, unwatched

PREFIX = "logs/run.0123456789ab/0123456789ab/1"
RECORDS = st.lists(
    st.builds(Record, st.integers(1, 3), st.floats(0, 4e9).map(lambda at: round(at, 3)), st.binary(min_size=1)),
    max_size=20,
)


class Unsure(MemoryStore):
    """Fails at some puts, before or after they have happened."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__()
        self._failures = list(failures)

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        failure = self._failures.pop(0) if self._failures else "none"
        if failure != "before":
            super().put(key, data, if_absent=if_absent, sent=sent)
        if failure != "none":
            raise Unavailable(failure)
        return True


def output(records: Sequence[tuple[int, float, bytes]]) -> bytes:
    return b"".join(data for _, _, data in records)


def whole(store: Store) -> tuple[bytes, bool]:
    reader = LogReader(store, PREFIX)
    read = b""
    while (batch := reader.poll(whole=True)).records:
        read += output(batch.records)
    return read, batch.closed


def count(store: Store) -> int:
    return len(list(store.list(f"{PREFIX}/")))


@given(st.lists(RECORDS, max_size=5))
def test_a_log_reads_as_it_was_written(parts: list[list[Record]]) -> None:
    store = MemoryStore()
    writer = LogWriter(store, PREFIX)
    for part in parts:
        writer.append(part)
        writer.flush()
    writer.close()
    writer.close()
    expected = b"".join(output(part) for part in parts)
    assert whole(store) == (expected, True)
    assert (writer.size, writer.offset, writer.buffered) == (len(expected), len(expected), 0)
    with pytest.raises(ValueError, match="closed"):
        writer.append([])


def test_a_short_log_is_one_object() -> None:
    store = MemoryStore()
    writer = LogWriter(store, PREFIX)
    writer.append([(1, 1.0, b"hello\r\n")])
    writer.close()
    data = store.get(keys.chunk(PREFIX, 0), limit=1000)
    assert data is not None
    head, body = data.split(b"\n", 1)
    assert json.loads(head) == {
        "closing": True,
        "offset": 0,
        "records": [[1, 1.0, 7]],
        "seq": 0,
        "size": 7,
        "total": 7,
    }
    assert body == b"hello\r\n"
    assert count(store) == 1


def test_an_empty_log_is_closed_too() -> None:
    store = MemoryStore()
    LogWriter(store, PREFIX).close()
    assert whole(store) == (b"", True)


def test_chunks_are_bounded() -> None:
    store = MemoryStore()
    writer = LogWriter(store, PREFIX)
    data = bytes(range(256)) * (CHUNK_BYTES // 100)
    writer.append([(1, 1.0, data)])
    assert writer.full
    writer.append([(1 + n % 2, 2.0 + n, b"%d" % n) for n in range(chunk.CHUNK_RECORDS + 5)])
    writer.close()
    assert whole(store) == (data + b"".join(b"%d" % n for n in range(chunk.CHUNK_RECORDS + 5)), True)
    assert all(head.size < CHUNK_LIMIT // 4 for head in store.list(f"{PREFIX}/"))
    assert count(store) >= 4


@given(RECORDS, st.lists(st.sampled_from(["none", "before", "after"]), max_size=12))
def test_a_store_that_fails_loses_nothing_and_doubles_nothing(records: list[Record], failures: list[str]) -> None:
    store = Unsure(failures)
    writer = LogWriter(store, PREFIX)
    reader = LogReader(store, PREFIX)
    read = b""
    for record in records:
        writer.append([record])
        try:
            writer.flush()
        except Unavailable:
            read += output(reader.poll().records)
    for _ in range(20):
        try:
            writer.close()
        except Unavailable:
            read += output(reader.poll().records)
    assert writer.closed
    assert (read + output(reader.poll().records), reader.closed) == (output(records), True)
    assert whole(store) == (output(records), True)


def test_a_close_that_failed_after_a_flush_still_closes() -> None:
    store = Unsure(["after"])
    reader = LogReader(store, PREFIX)
    writer = LogWriter(store, PREFIX)
    writer.append([(1, 1.0, b"x")])
    with pytest.raises(Unavailable):
        writer.flush()
    assert reader.poll() == ((Record(1, 1.0, b"x"),), False)
    writer.close()
    assert reader.poll() == ((), True)


@given(RECORDS, st.lists(st.integers(0, 20), max_size=4))
def test_a_writer_killed_anywhere_goes_on_where_it_was(records: list[Record], deaths: list[int]) -> None:
    store = MemoryStore()
    for death in deaths:
        writer = LogWriter.resume(store, PREFIX)
        for record in list(behind(records, writer.offset))[:death]:
            writer.append([record])
            writer.flush()
        writer.append(list(behind(records, writer.size)))  # never flushed
    writer = LogWriter.resume(store, PREFIX)
    assert output(records)[: writer.offset] == whole(store)[0]
    writer.append(behind(records, writer.offset))
    writer.flush()
    writer = LogWriter.resume(store, PREFIX)
    assert writer.offset == len(output(records))
    writer.close()
    assert whole(store) == (output(records), True)
    assert LogWriter.resume(store, PREFIX).closed


def test_a_broken_last_chunk_is_written_again() -> None:
    store = MemoryStore()
    writer = LogWriter(store, PREFIX)
    for data in (b"a", b"b"):
        writer.append([(1, 1.0, data)])
        writer.flush()
    store.put(keys.chunk(PREFIX, 1), b"garbage")
    store.put(f"{PREFIX}/other", b"garbage")
    writer = LogWriter.resume(store, PREFIX)
    assert (writer.seq, writer.offset) == (1, 1)


def test_a_line_is_soon_visible_and_a_long_log_has_few_chunks() -> None:
    assert flush_after(0.0, 0) <= 0.5
    assert flush_after(86_400.0, 3) <= 0.5  # a line after a silence
    now, chunks = 0.0, 0
    while now < 86_400:
        now += flush_after(now, chunks)
        chunks += 1
        assert 0 < flush_after(now, chunks) <= 30
    assert 2_800 < chunks < 3_200
