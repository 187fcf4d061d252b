import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from dstack.model import keys
from dstack.model.errors import Failed, Unavailable
from dstack.store import digests, fetching, placing, reading
from dstack.store.artifacts import Missing, Tree, download, save
from dstack.store.folder import FolderStore
from dstack.store.memory import MemoryStore
from dstack.store.parents import Parents
from dstack.store.scanning import Found
from dstack.store.store import Head, Sent, Source, unwatched
from dstack.store.workers import GaveUp, Workers
from tests.artifact_sets import shape

MIB = 1024 * 1024


class Counting(MemoryStore):
    """Counts what it is asked, and how much is under way at once."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.puts: Counter[str] = Counter()
        self.heads: Counter[str] = Counter()
        self.at_once = self.most_at_once = self.bytes = 0
        self.before_put: Callable[[str], None] = lambda _key: None

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            self.before_put(key)
            self.puts[key] += 1
            self.bytes += len(data) if isinstance(data, bytes) else data.size
            return super().put(key, data, if_absent=if_absent, sent=sent)
        finally:
            self.at_once -= 1

    def head(self, key: str) -> Head | None:
        self.heads[key] += 1
        return super().head(key)


def files(folder: Path, count: int, size: int) -> Tree:
    (folder / "set").mkdir(parents=True)
    for number in range(count):
        (folder / "set" / f"{number:04}").write_bytes(os.urandom(size))
    return Tree(root=folder)


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock whose ticks nobody needs to wait for."""
    monkeypatch.setattr(digests, "TICK_NS", 20_000_000)


def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts which files are read."""
    counted: Counter[str] = Counter()
    opened = reading.opened

    def counting(found: Found, parents: Parents) -> AbstractContextManager[int]:
        counted[os.fsdecode(found.path)] += 1
        return opened(found, parents)

    monkeypatch.setattr("dstack.store.reading.opened", counting)
    monkeypatch.setattr("dstack.store.uploading.opened", counting)
    return counted


@pytest.mark.usefixtures("tick")
def test_the_same_set_again_reads_nothing_sends_nothing_and_asks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, store, memory = files(tmp_path / "job", 1000, 4096), Counting(), tmp_path / "memory"
    (tmp_path / "job" / "set" / "large").write_bytes(os.urandom(3 * MIB))
    time.sleep(0.1)
    first = save(store, tree, ("set",), memory=memory)
    puts = store.puts.copy()
    store.heads.clear()
    counted = reads(monkeypatch)
    assert save(store, tree, ("set",), memory=memory) == first
    assert counted == Counter()
    assert store.puts == puts
    assert set(store.heads.values()) == {1}
    assert len(store.heads) == len(puts)


@pytest.mark.usefixtures("tick")
def test_of_a_set_with_one_changed_file_one_pack_is_read_and_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, store, memory = files(tmp_path / "job", 2000, 4096), Counting(), tmp_path / "memory"
    time.sleep(0.1)
    save(store, tree, ("set",), memory=memory)
    changed = tmp_path / "job" / "set" / "1234"
    changed.write_bytes(b"x" * 4096)
    store.bytes = 0
    store.puts.clear()
    counted = reads(monkeypatch)
    again = save(store, tree, ("set",), memory=memory)
    assert again.manifest is not None
    assert [key.partition("/")[0] for key in store.puts] in (["objects", "manifests"], ["objects"] * 2 + ["manifests"])
    assert len(counted) < 2000 - 500
    download(store, again.manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")


@pytest.mark.usefixtures("tick")
def test_a_file_changed_with_its_old_size_and_times_is_seen(tmp_path: Path) -> None:
    tree, store, memory = files(tmp_path / "job", 3, 4096), MemoryStore(), tmp_path / "memory"
    time.sleep(0.1)
    save(store, tree, ("set",), memory=memory)
    file = tmp_path / "job" / "set" / "0001"
    before = file.stat()
    file.write_bytes(b"y" * 4096)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = save(store, tree, ("set",), memory=memory).manifest
    assert again is not None
    download(store, again, tmp_path / "down")
    assert (tmp_path / "down" / "set" / "0001").read_bytes() == b"y" * 4096


def test_a_file_read_right_after_it_changed_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, memory = files(tmp_path / "job", 3, 4096), tmp_path / "memory"
    counted = reads(monkeypatch)
    for turn in (1, 2):
        save(MemoryStore(), tree, ("set",), memory=memory)
        assert set(counted.values()) == {turn}


@pytest.mark.usefixtures("tick")
def test_what_is_remembered_but_gone_from_the_store_is_sent_again(tmp_path: Path) -> None:
    tree, memory = files(tmp_path / "job", 300, 4096), tmp_path / "memory"
    (tmp_path / "job" / "set" / "large").write_bytes(os.urandom(3 * MIB))
    time.sleep(0.1)
    save(MemoryStore(), tree, ("set",), memory=memory)
    store = MemoryStore()
    manifest = save(store, tree, ("set",), memory=memory).manifest
    assert manifest is not None
    assert {head.key: head.size for head in store.list("objects/")} == manifest.objects()


@pytest.mark.usefixtures("tick")
def test_files_that_change_between_the_look_and_the_reading_are_saved_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, memory = files(tmp_path / "job", 20, 4096), tmp_path / "memory"
    for number in (3, 7, 11):
        (tmp_path / "job" / "set" / f"{number:04}").write_bytes(b"alike" * 100)
    time.sleep(0.1)
    save(MemoryStore(), tree, ("set",), memory=memory)
    find = digests.Digests.find

    def meddling(self: digests.Digests, path: bytes, stamp: digests.Stamp) -> str | None:
        (tmp_path / "job" / "set" / "0003").write_bytes(b"other" * 100)
        return find(self, path, stamp)

    monkeypatch.setattr(digests.Digests, "find", meddling)
    store = MemoryStore()
    manifest = save(store, tree, ("set",), memory=memory).manifest
    assert manifest is not None
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")


@pytest.mark.parametrize("content", [b"", b"{", b'{"files":{"set/0000":[1]}}', b"\xff" * 100, None])
def test_a_memory_that_can_not_be_read_is_an_empty_one(tmp_path: Path, content: bytes | None) -> None:
    tree, memory = files(tmp_path / "job", 3, 4096), tmp_path / "memory"
    if content is None:
        memory.mkdir()
    else:
        memory.write_bytes(content)
    assert save(MemoryStore(), tree, ("set",), memory=memory).digest is not None


def test_many_objects_are_on_their_way_at_once_but_no_more_than_pays_off(tmp_path: Path) -> None:
    store = Counting(width=3)
    barrier = threading.Barrier(3)

    def meet(key: str) -> None:
        if key.startswith("objects/"):
            barrier.wait(10)

    store.before_put = meet
    saved = save(store, files(tmp_path, 12, 2 * MIB), ("set",))
    assert saved.digest is not None
    assert store.most_at_once == 3


def test_the_first_error_stops_the_rest(tmp_path: Path) -> None:
    store = Counting()

    def fail(_key: str) -> None:
        if sum(store.puts.values()) == 3:
            msg = "no rights"
            raise Failed(msg)

    store.before_put = fail
    tree = files(tmp_path, 40, 2 * MIB)
    with pytest.raises(Failed, match="no rights"):
        save(store, tree, ("set",))
    assert sum(store.puts.values()) <= 3 + store.width


class Cancelled(Exception):
    pass


def giving_up(after: int) -> Callable[[int, int], None]:
    def tell(done: int, _total: int) -> None:
        if done > after:
            raise Cancelled

    return tell


def open_files() -> set[str]:
    found = set[str]()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.add(str(link.readlink()))
    return found


@pytest.mark.parametrize("size", [4096, 2 * MIB, 70 * MIB])
def test_who_watches_can_end_a_transfer_and_nothing_leaks(tmp_path: Path, size: int) -> None:
    (tmp_path / "store").mkdir()
    store = FolderStore(tmp_path / "store")
    tree = files(tmp_path / "job", 1 if size > 64 * MIB else 60, size)
    before, threads = open_files(), threading.active_count()
    with pytest.raises(Cancelled):
        save(store, tree, ("set",), progress=giving_up(size // 2))
    assert list(store.list("manifests/")) == []
    manifest = save(store, tree, ("set",)).manifest
    assert manifest is not None
    with pytest.raises(Cancelled):
        download(store, manifest, tmp_path / "down", progress=giving_up(size // 2))
    assert [path for path in (tmp_path / "down").rglob("*") if path.name.startswith(".dstack-part-")] == []
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []
    assert (open_files(), threading.active_count()) == (before, threads)
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "LARGE", MIB)
    monkeypatch.setattr(fetching, "PART", MIB)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [2 * MIB, 10 * MIB + 7, 10 * MIB - 1])
def test_a_large_object_comes_in_parts_at_once(tmp_path: Path, size: int) -> None:
    starts = set[int]()

    class Watched(MemoryStore):
        def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
            starts.add(start)
            return super().open(key, start=start, size=size)

    store, tree = Watched(), files(tmp_path / "job", 1, size)
    manifest = save(store, tree, ("set",)).manifest
    assert manifest is not None
    told: list[int] = []
    download(store, manifest, tmp_path / "down", progress=lambda done, _total: told.append(done))
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")
    assert starts == set(range(0, size, MIB))
    assert told == sorted(told)
    assert told[-1] == size


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:5] + b"?" + data[6:], lambda _data: b""])
def test_a_large_object_that_is_damaged_is_never_put_in_place(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = MemoryStore()
    manifest = save(store, files(tmp_path / "job", 1, 5 * MIB), ("set",)).manifest
    assert manifest is not None
    key = keys.content(manifest.entries[-1].sha256)
    data = store.get(key, limit=8 * MIB)
    assert data is not None
    store.put(key, damage(data))
    with pytest.raises(Missing, match="damaged"):
        download(store, manifest, tmp_path / "down")
    assert list((tmp_path / "down" / "set").iterdir()) == []


def test_workers_raise_the_first_error_and_do_nothing_more() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 5:
            msg = "first"
            raise ValueError(msg)
        done.append(number)

    def work_all() -> None:
        with Workers(1) as workers:
            for number in range(100):
                workers.start(partial(work, number))

    with pytest.raises(ValueError, match="first"):
        work_all()
    assert done == [0, 1, 2, 3, 4]


def test_workers_hold_who_is_ahead_of_them() -> None:
    go = threading.Event()
    begun: list[int] = []

    def feed() -> None:
        with Workers(2) as workers:
            for number in range(50):
                workers.start(lambda: go.wait(10))
                begun.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.2)
    assert len(begun) <= 2 + 2
    go.set()
    feeder.join(10)
    assert len(begun) == 50


@pytest.mark.parametrize("size", [4096, 2 * MIB, 70 * MIB])
def test_a_save_that_is_ended_leaves_what_was_sent_to_the_next_one(tmp_path: Path, size: int) -> None:
    raised: list[BaseException] = []

    class Watched(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            try:
                return super().put(key, data, if_absent=if_absent, sent=sent)
            except BaseException as error:
                raised.append(error)
                raise

    with pytest.raises(Cancelled):
        save(Watched(), files(tmp_path, 3, size), ("set",), progress=giving_up(size // 2))
    # A store keeps the parts of a large object for Unavailable alone.
    assert {type(error) for error in raised} == {GaveUp}
    assert issubclass(GaveUp, Unavailable)
