"""One chunk of a log: a header line of JSON, and the raw bytes of output it describes. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, NamedTuple

from msgspec import Meta

from dstack.model import keys
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid

STDOUT, STDERR, SYSTEM = 1, 2, 3
CHUNK_BYTES = 1024 * 1024
CHUNK_RECORDS = 10_000
HEADER_LIMIT = 2 * 1024 * 1024
CHUNK_LIMIT = 16 * 1024 * 1024

_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Stream = Annotated[int, Meta(ge=STDOUT, le=SYSTEM)]
# The end of the year 9999, the last that can be shown.
_END = 253_402_300_000.0
_At = Annotated[float, Meta(ge=0, le=_END)]
# The same in `runner.frames`, which writes them: how a frame's stream is numbered.
_Piece = tuple[int, float, bytes]


class Record(NamedTuple):
    """A piece of output: stream (1 stdout, 2 stderr, 3 dstack itself), time in seconds since the epoch, its bytes."""

    stream: int
    at: float
    data: bytes


class Header(Value, frozen=True, kw_only=True):
    """`offset`: bytes of output in the chunks before. `records`: stream, time, length of each.

    `total`: bytes of the whole log, in the closing chunk.
    """

    version: int = 1
    seq: _Count
    offset: _Count
    size: _Count
    records: Annotated[tuple[tuple[_Stream, _At, _Count], ...], Meta(max_length=CHUNK_RECORDS)] = ()
    closing: bool = False
    total: _Count | None = None


class Chunk(NamedTuple):
    """A chunk as read."""

    header: Header
    records: tuple[Record, ...]


def pack(seq: int, offset: int, records: Sequence[Record], *, closing: bool = False) -> bytes:
    """The object of a chunk. A closing one states the total."""
    data = b"".join(record.data for record in records)
    header = Header(
        seq=seq,
        offset=offset,
        size=len(data),
        records=tuple((record.stream, record.at, len(record.data)) for record in records),
        closing=closing,
        total=offset + len(data) if closing else None,
    )
    return encode(header) + b"\n" + data


def unpack(data: bytes, seq: int) -> Chunk:
    """Parse an untrusted chunk that stands at `seq`. Raises Invalid."""
    line, newline, body = data.partition(b"\n")
    header = decode(line, Header, "its header", limit=HEADER_LIMIT)
    if not newline or header.seq != seq or header.size != len(body) or sum(r[2] for r in header.records) != len(body):
        msg = "its header doesn't fit its place or its content"
        raise Invalid(msg)
    if header.closing and header.total != header.offset + header.size:
        msg = "its total is not the sum of its parts"
        raise Invalid(msg)
    return Chunk(header, _cut(header, body))


def joined(pieces: Iterable[_Piece]) -> list[Record]:
    """Records of at most a chunk's size, without empty ones; what one stream wrote in one millisecond is one record."""
    timed = ((stream, _shown(at), data) for stream, at, data in pieces if data)
    records = []
    for (stream, at), group in groupby(timed, key=lambda piece: piece[:2]):
        data = b"".join(piece[2] for piece in group)
        records += [Record(stream, at, data[i : i + CHUNK_BYTES]) for i in range(0, len(data), CHUNK_BYTES)]
    return records


def seq_of(key: str) -> int | None:
    """The number of the chunk that stands at `key`; None where none can."""
    name = key.rpartition("/")[2]
    return int(name) if name.isascii() and name.isdigit() and len(name) == keys.SEQ_DIGITS else None


def behind(pieces: Iterable[_Piece], offset: int) -> Iterator[Record]:
    """What follows the first `offset` bytes of output: to go on where a log ended."""
    for stream, at, data in pieces:
        if offset < len(data):
            yield Record(stream, at, data[offset:])
        offset = max(0, offset - len(data))


def _shown(at: float) -> float:
    """To the millisecond; 0 for a time that is none."""
    return round(at, 3) if 0 <= at <= _END else 0.0


def _cut(header: Header, body: bytes) -> tuple[Record, ...]:
    records = []
    start = 0
    for stream, at, length in header.records:
        records.append(Record(stream, at, body[start : start + length]))
        start += length
    return tuple(records)
