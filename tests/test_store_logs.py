import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import keys
from dstack.model.errors import Invalid, Unavailable
from dstack.store import chunk
from dstack.store.chunk import CHUNK_BYTES, CHUNK_LIMIT, SYSTEM, Record, behind, joined, pack, unpack
from dstack.store.lines import LONGEST_LINE, Line, Lines, lines, since, tail
from dstack.store.log_reader import LISTING_EVERY, LogReader
from dstack.store.log_writer import LogWriter, flush_after
from dstack.store.memory import MemoryStore
from dstack.store.store import Store
from runner import frames

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

    def put(self, key: str, data: bytes | BinaryIO, *, if_absent: bool = False) -> bool:
        failure = self._failures.pop(0) if self._failures else "none"
        if failure != "before":
            super().put(key, data, if_absent=if_absent)
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


def test_streams_are_numbered_as_in_frames() -> None:
    assert (chunk.STDOUT, chunk.STDERR, chunk.SYSTEM) == (frames.STDOUT, frames.STDERR, frames.SYSTEM)


@given(RECORDS)
def test_a_chunk_comes_back_as_it_was(records: list[Record]) -> None:
    read = unpack(pack(7, 1000, records, closing=True), 7)
    assert list(read.records) == records
    assert (read.header.offset, read.header.size, read.header.closing) == (1000, len(output(records)), True)
    assert read.header.total == 1000 + len(output(records))


@given(st.binary(max_size=200))
def test_no_bytes_crash_a_reader(data: bytes) -> None:
    with pytest.raises(Invalid):
        unpack(data, 0)


GOOD = {"seq": 3, "offset": 0, "size": 2, "records": [[1, 1.5, 2]]}


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 4},
        {"seq": -1},
        {"offset": -1},
        {"offset": 2**63},
        {"size": 3},
        {"records": [[1, 1.5, 3]]},
        {"records": [[1, 1.5, 3], [1, 1.5, -1]]},
        {"records": [[4, 1.5, 2]]},
        {"records": [[0, 1.5, 2]]},
        {"records": [[1, 1e300, 2]]},
        {"records": [[1, -1, 2]]},
        {"records": [[1, None, 2]]},
        {"records": [[1, 1.5, 2]] + [[1, 1.5, 0]] * chunk.CHUNK_RECORDS},
        {"closing": True},
        {"closing": True, "total": 3},
        {"closing": "yes"},
    ],
)
def test_a_header_that_lies_is_refused(change: dict[str, object]) -> None:
    assert unpack(json.dumps(GOOD).encode() + b"\nxy", 3).records == (Record(1, 1.5, b"xy"),)
    with pytest.raises(Invalid):
        unpack(json.dumps(GOOD | change).encode() + b"\nxy", 3)


@given(RECORDS, st.integers(0, 100))
def test_what_lies_behind_an_offset_is_the_rest(records: list[Record], offset: int) -> None:
    assert output(list(behind(records, offset))) == output(records)[offset:]


def test_what_one_stream_writes_in_a_millisecond_is_one_record() -> None:
    pieces = [(1, 1.0001, b"a"), (1, 1.0002, b"b"), (2, 1.0002, b"c"), (1, 1.01, b""), (1, float("nan"), b"d")]
    assert joined(pieces) == [Record(1, 1.0, b"ab"), Record(2, 1.0, b"c"), Record(1, 0.0, b"d")]


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
    batches = [reader.poll() for _ in range(LISTING_EVERY)]
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


def test_a_line_is_soon_visible_and_a_long_log_has_few_chunks() -> None:
    assert flush_after(0.0, 0) <= 0.5
    assert flush_after(86_400.0, 3) <= 0.5  # a line after a silence
    now, chunks = 0.0, 0
    while now < 86_400:
        now += flush_after(now, chunks)
        chunks += 1
        assert 0 < flush_after(now, chunks) <= 30
    assert 2_800 < chunks < 3_200


def test_lines_are_put_together_by_stream() -> None:
    records = [
        Record(1, 1.0, b"one\ntw"),
        Record(2, 2.0, b"err"),
        Record(1, 3.0, b"o\r\n\nthree"),
        Record(2, 4.0, b"or\n"),
    ]
    assert list(lines(records)) == [
        Line(1, 1.0, b"one"),
        Line(1, 1.0, b"two\r"),
        Line(1, 3.0, b""),
        Line(2, 2.0, b"error"),
        Line(1, 3.0, b"three"),
    ]


@given(RECORDS)
def test_no_byte_is_lost_in_lines(records: list[Record]) -> None:
    for stream in (1, 2, 3):
        mine = [record for record in records if record.stream == stream]
        assert b"\n".join(line.data for line in lines(mine)) == output(mine).removesuffix(b"\n")


def test_an_endless_line_comes_in_parts() -> None:
    together = Lines()
    parts = [line for _ in range(40) for line in together.feed([Record(1, 1.0, b"x" * 100_000)])]
    assert len(parts) == 3
    assert all(len(line.data) < LONGEST_LINE + 200_000 for line in parts)
    assert sum(len(line.data) for line in [*parts, *together.rest()]) == 4_000_000


def test_the_last_lines_and_those_since() -> None:
    all_lines = [Line(1, float(n), b"%d" % n) for n in range(10)]
    assert [line.text for line in tail(all_lines, 2)] == ["8", "9"]
    assert tail(all_lines, 0) == tail(all_lines, -1) == ()
    assert [line.text for line in since(all_lines, datetime.fromtimestamp(8, UTC))] == ["8", "9"]
    assert Line(1, 0.0, b"\xff").text == "\N{REPLACEMENT CHARACTER}"
    assert Line(1, 1.5, b"").time == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
