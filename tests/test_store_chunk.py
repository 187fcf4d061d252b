import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from dstack.store import chunk
from dstack.store.chunk import Record, behind, joined, pack, unpack
from dstack.store.lines import LONGEST_LINE, Line, Lines, chosen, lines
from runner import frames

PREFIX = "logs/run.0123456789ab/0123456789ab/1"
RECORDS = st.lists(
    st.builds(Record, st.integers(1, 3), st.floats(0, 4e9).map(lambda at: round(at, 3)), st.binary(min_size=1)),
    max_size=20,
)


def output(records: Sequence[tuple[int, float, bytes]]) -> bytes:
    return b"".join(data for _, _, data in records)


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
    assert [(seq, line.text) for seq, line in chosen(all_lines, last=2)] == [(8, "8"), (9, "9")]
    assert list(chosen(all_lines, last=0)) == []
    eight = datetime.fromtimestamp(8, UTC)
    assert [(seq, line.text) for seq, line in chosen(all_lines, since=eight)] == [(8, "8"), (9, "9")]
    assert [seq for seq, _ in chosen(all_lines, since=eight, last=1)] == [9]
    assert Line(1, 0.0, b"\xff").text == "\N{REPLACEMENT CHARACTER}"
    assert Line(1, 1.5, b"").time == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
