"""Reads what a set needs out of the store: whole objects, large ones in parts at once, the members of a pack."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, NamedTuple

from dstack.model import keys
from dstack.model.errors import Failed
from dstack.model.manifest import Entry
from dstack.store import beneath
from dstack.store.store import Store
from dstack.store.workers import Workers

MIB = 1024 * 1024
# Read and written at once: with pieces of a MiB the kernel takes several times as long to find room for them.
PIECE = 4 * MIB
# Of a large object, so much is fetched at once by each thread.
PART = 16 * MIB
# What nobody wants between two members of a pack is read over rather than asking the store once more.
GAP = MIB

Count = Callable[[int], None]


class Missing(Failed):
    """The store no longer has something a manifest names, or not as it was."""


class Span(NamedTuple):
    """Bytes of a pack."""

    offset: int
    size: int


def copy(store: Store, entry: Entry, target: int, count: Count) -> None:
    """An object's content into an open file, in one stream. Raises Missing."""
    digest, size = hashlib.sha256(), 0
    with opened(store, entry.sha256, entry.path, None) as source:
        # One byte more than there should be is enough to know that it is wrong.
        while piece := source.read(max(0, min(PIECE, entry.size + 1 - size))):
            digest.update(piece)
            beneath.write_all(target, piece)
            size += len(piece)
            count(len(piece))
    verify(store, entry, size, digest.hexdigest())


def copy_in_parts(store: Store, entry: Entry, target: int, count: Count, workers: Workers) -> None:
    """Likewise in parts that come at once, each to its place; the digest is taken in order as they arrive."""
    digest, size = hashlib.sha256(), 0
    coming: deque[Future[None]] = deque()
    try:
        for start in range(0, entry.size, PART):
            coming.append(workers.start(partial(_copy_part, store, entry, target, start, count)))
            if len(coming) > store.width:
                coming.popleft().result()
                size += _take(digest, target, size)
        while coming:
            coming.popleft().result()
            size += _take(digest, target, size)
    finally:
        for part in coming:
            part.cancel()
        wait(coming)
    verify(store, entry, size, digest.hexdigest())


def members(store: Store, pack: str, path: str, spans: Sequence[Span]) -> Generator[bytes, None, None]:
    """The bytes of each span of a pack, in order of offset. To be closed. Raises Missing, which names `path`."""
    for run in _runs(spans):
        end = max(span.offset + span.size for span in run)
        with opened(store, pack, path, Span(run[0].offset, end - run[0].offset)) as source:
            at = run[0].offset
            for span in run:
                _exactly(source, span.offset - at)
                yield _exactly(source, span.size)
                at = span.offset + span.size


def opened(store: Store, sha256: str, path: str, span: Span | None) -> AbstractContextManager[BinaryIO]:
    """A stream of an object. Raises Missing, which names the file that needs it."""
    key = keys.content(sha256)
    stream = store.open(key) if span is None else store.open(key, start=span.offset, size=span.size)
    if stream is None:
        msg = f"the store {store.url} no longer has the content of {path} ({sha256[:12]}…)"
        raise Missing(msg)
    return stream


def verify(store: Store, entry: Entry, size: int, sha256: str) -> None:
    """Raises Missing where that isn't what was saved."""
    if size != entry.size or sha256 != entry.sha256:
        raise _damaged(store, entry)


def _copy_part(store: Store, entry: Entry, target: int, start: int, count: Count) -> None:
    with opened(store, entry.sha256, entry.path, Span(start, min(PART, entry.size - start))) as source:
        at, end = start, min(entry.size, start + PART)
        while at < end and (piece := source.read(min(PIECE, end - at))):
            at += beneath.write_at(target, piece, at)
            count(len(piece))
    if at < end:  # whatever size a manifest claims, nothing is asked for behind the object's end
        raise _damaged(store, entry)


def _damaged(store: Store, entry: Entry) -> Missing:
    return Missing(f"the content of {entry.path} in the store {store.url} is damaged: it is not what was saved")


def _take(digest: "hashlib._Hash", target: int, start: int) -> int:
    """Take what arrived from `start` on, of one part, into the digest; how much it was."""
    at = start
    while at < start + PART and (piece := os.pread(target, min(PIECE, start + PART - at), at)):
        digest.update(piece)
        at += len(piece)
    return at - start


def _runs(spans: Sequence[Span]) -> Iterator[list[Span]]:
    run = list[Span]()
    for span in spans:
        end = run[-1].offset + run[-1].size if run else 0
        if run and not end <= span.offset <= end + GAP:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _exactly(source: BinaryIO, size: int) -> bytes:
    """As many bytes, or all that are left."""
    data = source.read(size) if size else b""
    while len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data
