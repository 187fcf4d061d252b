"""What every store must do: a further implementation joins by one more parameter of the fixture."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from dstack.model.errors import Invalid
from dstack.model.s3_place import parse_place
from dstack.store.folder import FolderStore
from dstack.store.memory import MemoryStore
from dstack.store.s3 import S3Store
from dstack.store.store import Store
from tests.s3_server import S3Server
from tests.sources import Broken, Bytes

MIB = 1024 * 1024


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path)
    if request.param == "memory":
        return MemoryStore()
    url = cast("S3Server", request.getfixturevalue("s3")).url(prefix="some/where")
    return S3Store(parse_place(url), url=url, within="repo-1/")


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff\r\n" * 1000, b"y" * (3 * MIB + 1)])
def test_bytes_come_back_as_they_were(store: Store, data: bytes) -> None:
    assert store.put("objects/a", data)
    assert store.get("objects/a", limit=len(data)) == data


@pytest.mark.parametrize("data", [b"", b"x", b"z" * (3 * MIB + 1)])
def test_streams_come_back_as_they_were(store: Store, data: bytes) -> None:
    assert store.put("a/b/c", Bytes(data))
    stream = store.open("a/b/c")
    assert stream is not None
    with stream as file:
        assert file.read() == data


def test_a_large_stream_goes_in_and_out_in_pieces(store: Store) -> None:
    data = bytes(range(256)) * (64 * MIB // 256)
    store.put("objects/large", Bytes(data))
    stream = store.open("objects/large")
    assert stream is not None
    digest = hashlib.sha256()
    with stream as file:
        while piece := file.read(MIB):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0, 3), (5, None), (5, 10), (99, 10), (100, 1), (1000, None)])
def test_a_part_of_an_object_can_be_read(store: Store, start: int, size: int | None) -> None:
    data = bytes(range(100))
    store.put("k", data)
    stream = store.open("k", start=start, size=size)
    assert stream is not None
    with stream as file:
        assert file.read() == data[start : None if size is None else start + size]


def test_what_is_sent_is_told(store: Store) -> None:
    told: list[int] = []
    store.put("k", Bytes(b"x" * (20 * MIB + 1)), sent=told.append)
    assert sum(told) == 20 * MIB + 1
    assert len(told) > 1 or isinstance(store, MemoryStore)


def test_who_is_told_may_end_it(store: Store) -> None:
    def enough(_size: int) -> None:
        msg = "enough"
        raise OSError(msg)

    with pytest.raises(OSError, match="enough"):
        store.put("k", Bytes(b"x" * (20 * MIB)), sent=enough)
    assert store.head("k") is None


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.get("objects/none", limit=1) is None
    assert store.open("objects/none") is None
    assert store.head("objects/none") is None
    assert list(store.list("objects/")) == []
    store.delete("objects/none")


def test_a_folder_of_keys_is_no_object(store: Store) -> None:
    store.put("a/b/c", b"x")
    assert store.get("a/b", limit=10) is None
    assert store.open("a/b") is None
    assert store.head("a/b") is None
    store.delete("a/b")
    assert store.get("a/b/c", limit=10) == b"x"


def test_put_replaces(store: Store) -> None:
    assert store.put("k", b"old")
    assert store.put("k", b"new and longer")
    assert store.get("k", limit=100) == b"new and longer"


def test_if_absent_leaves_what_is_there(store: Store) -> None:
    assert store.put("k", b"first", if_absent=True)
    assert not store.put("k", b"second", if_absent=True)
    assert store.get("k", limit=100) == b"first"


def test_if_absent_has_one_winner_of_sixteen(store: Store) -> None:
    for turn in range(1 if isinstance(store, S3Store) else 8):  # this server takes seconds over it
        start = threading.Barrier(16)

        def attempt(number: int, start: threading.Barrier = start, turn: int = turn) -> bool:
            start.wait()
            return store.put(f"condemned/{turn}", b"%d" % number * 1000, if_absent=True)

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(attempt, range(16)))
        assert won.count(True) == 1
        assert store.get(f"condemned/{turn}", limit=MIB) == b"%d" % won.index(True) * 1000


def test_a_read_beside_writes_is_never_torn(store: Store) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"abcd"]
    store.put("k", contents[0])
    over = threading.Event()

    def write(data: bytes) -> None:
        for _ in range(15):
            store.put("k", data)

    def read() -> set[bytes]:
        seen = set()
        while not over.is_set():
            data = store.get("k", limit=MIB)
            assert data is not None
            seen.add(data)
        return seen

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for writer in [pool.submit(write, data) for data in contents]:
            writer.result()
        over.set()
        assert all(reader.result() <= set(contents) for reader in readers)


def test_a_stream_that_breaks_leaves_nothing(store: Store) -> None:
    with pytest.raises(OSError, match="went away"):
        store.put("new/key", Broken())
    assert store.head("new/key") is None
    assert list(store.list("new/")) == []


def test_a_stream_that_breaks_leaves_what_was_there(store: Store) -> None:
    store.put("k", b"before")
    with pytest.raises(OSError, match="went away"):
        store.put("k", Broken())
    assert store.get("k", limit=10) == b"before"


def test_more_than_the_limit_is_refused(store: Store) -> None:
    store.put("k", b"12345")
    assert store.get("k", limit=5) == b"12345"
    with pytest.raises(Invalid, match="more than the 4 bytes"):
        store.get("k", limit=4)


def test_head_tells_size_and_time(store: Store) -> None:
    store.put("k", b"12345")
    head = store.head("k")
    assert head is not None
    assert (head.key, head.size) == ("k", 5)
    assert abs(store.now() - head.modified) < timedelta(seconds=30)


def test_a_folder_is_listed_in_order(store: Store) -> None:
    names = ["00000002", "00000010", "b", "a", "A", "_", "a-b", "a.b", "a=1,b"]
    for name in names:
        store.put(f"logs/run/{name}", b"x" * len(name))
    store.put("logs/run-2/a", b"")
    store.put("other", b"")
    found = list(store.list("logs/run/"))
    assert [head.key for head in found] == [f"logs/run/{name}" for name in sorted(names)]
    assert [head.size for head in found] == [len(name) for name in sorted(names)]


def test_a_listing_goes_on_behind_a_key(store: Store) -> None:
    for number in range(20):
        store.put(f"l/{number:08d}", b"")
    assert [head.key for head in store.list("l/", after="l/00000017")] == ["l/00000018", "l/00000019"]
    assert [head.key for head in store.list("l/", after="l/00000017x")] == ["l/00000018", "l/00000019"]
    assert list(store.list("l/", after="l/99999999")) == []


def test_everything_below_a_prefix_is_listed(store: Store) -> None:
    keys = {"a/b/c", "a/b/d", "a/e", "f"}
    for key in keys:
        store.put(key, b"")
    assert {head.key for head in store.list("")} == keys
    assert {head.key for head in store.list("a/")} == {"a/b/c", "a/b/d", "a/e"}


def test_deleted_is_gone_and_twice_is_no_error(store: Store) -> None:
    store.put("a/b", b"x")
    store.put("a/c", b"y")
    store.delete("a/b")
    store.delete("a/b")
    assert [head.key for head in store.list("a/")] == ["a/c"]
    store.delete("a/c")
    assert store.put("a/b", b"again")


BAD = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", ".hidden", "a/.tmp", "a\0b", "a\nb", "a\\b"]
BAD += ["a b", "ä", "\udcff", "-a", "a" * 201, "/".join(["a" * 100] * 6), "a:b", "~", "a*"]


@pytest.mark.parametrize("key", BAD)
def test_an_odd_key_is_refused(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.get(key, limit=1),
        lambda: store.open(key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(Invalid, match="is not a key"):
            call()


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "/a/", ".a/"])
def test_an_odd_prefix_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(Invalid):
        list(store.list(prefix))
