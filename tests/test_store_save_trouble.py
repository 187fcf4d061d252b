import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dstack.model import keys
from dstack.model.errors import Unavailable
from dstack.store.artifacts import Tree, save
from dstack.store.folder import FolderStore
from dstack.store.memory import MemoryStore
from dstack.store.reading import Verified
from dstack.store.store import Head, Sent, Source, unwatched

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore(tmp_path / "store")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


@contextmanager
def rewriting(path: Path) -> Iterator[None]:
    """Somebody writes into the file all the time."""
    over = threading.Event()

    def write() -> None:
        with path.open("r+b") as file:
            turn = 0
            while not over.is_set():
                turn += 1
                file.seek(0)
                file.write(b"%d" % (turn % 10) * MIB)
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize("size", [MIB, 9 * MIB])
def test_a_file_that_changes_meanwhile_is_stored_under_its_true_digest(
    store: FolderStore, job: Path, size: int
) -> None:
    (job / "f").write_bytes(b"x" * size)
    with rewriting(job / "f"):
        for _ in range(5):
            save(store, Tree(root=job), ("f",))
    for head in store.list("objects/"):
        data = store.get(head.key, limit=64 * MIB)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == head.key.removeprefix("objects/")


def test_a_file_that_changes_and_changes_back_is_stored(job: Path) -> None:
    data = b"x" * (9 * MIB)

    class Meddling(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            if isinstance(data, Verified) and data.size == 9 * MIB and not self.meddled:
                self.meddled = True
                (job / "f").write_bytes(b"y" * (9 * MIB))
                try:
                    return super().put(key, data, if_absent=if_absent, sent=sent)
                finally:
                    (job / "f").write_bytes(b"x" * (9 * MIB))
            return super().put(key, data, if_absent=if_absent, sent=sent)

        meddled = False

    store = Meddling()
    (job / "f").write_bytes(data)
    save(store, Tree(root=job), ("f",))
    assert store.meddled
    assert store.get(keys.content(hashlib.sha256(data).hexdigest()), limit=9 * MIB) == data


def test_a_file_that_grows_or_shrinks_meanwhile_is_saved_as_far_as_it_was(job: Path) -> None:
    class Meddling(MemoryStore):
        def head(self, key: str) -> Head | None:
            with (job / "grows").open("ab") as file:
                file.write(b"more")
            os.truncate(job / "shrinks", 5 * MIB - 7)
            return super().head(key)

    store = Meddling()
    (job / "grows").write_bytes(b"g" * 6 * MIB)
    (job / "shrinks").write_bytes(b"s" * 6 * MIB)
    manifest = save(store, Tree(root=job), (".",)).manifest
    assert manifest is not None
    for entry in manifest.entries:
        data = store.get(keys.content(entry.sha256), limit=64 * MIB)
        assert data is not None
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry.sha256, entry.size)
        assert set(data) == {ord(entry.path[0])}


def test_a_file_that_goes_away_meanwhile_is_a_warning(job: Path) -> None:
    class Meddling(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            (job / "z").unlink(missing_ok=True)
            return super().put(key, data, if_absent=if_absent, sent=sent)

    for number in range(50):
        (job / f"b{number}").write_bytes(b"%d" % number * MIB)
    (job / "z").write_bytes(b"z" * 2 * MIB)
    saved = save(Meddling(), Tree(root=job), (".",))
    assert saved.manifest is not None
    assert len(saved.manifest.entries) == 50
    assert saved.warnings == ("'z' went away while it was being saved",)


def test_what_the_store_loses_is_noticed(job: Path) -> None:
    class Losing(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            return key.startswith("objects/") or super().put(key, data, if_absent=if_absent, sent=sent)

    (job / "f").write_text("x")
    with pytest.raises(Unavailable, match="does not hold objects/"):
        save(Losing(), Tree(root=job), ("f",))


def test_a_save_cut_short_goes_on_where_it_was(job: Path) -> None:
    arrived: list[str] = []
    away = threading.Event()

    class Failing(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            if len(arrived) >= 7 and not away.is_set():
                msg = "away"
                raise Unavailable(msg)
            done = super().put(key, data, if_absent=if_absent, sent=sent)
            arrived.append(key)
            return done

    for number in range(20):
        (job / str(number)).write_bytes(b"%03d" % number * MIB)
    store = Failing()
    with pytest.raises(Unavailable):
        save(store, Tree(root=job), (".",))
    assert list(store.list("manifests/")) == []
    away.set()
    save(store, Tree(root=job), (".",))
    assert len(arrived) == len(set(arrived)) == 20 + 1
