import errno
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from dstack.model.errors import DstackError, Failed, Invalid, Unavailable
from dstack.store import incoming
from dstack.store.folder import FolderStore
from dstack.store.folder_errors import explained
from tests.sources import Zeros

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent

ENDLESS_PUT = """
import sys, time
from pathlib import Path
from dstack.store.folder import FolderStore

class Endless:
    size = 2**60
    def read(self, start, size):
        print("reading", flush=True)
        time.sleep(0.02)
        return b"half " * 1000

FolderStore(Path(sys.argv[1])).put("objects/k", Endless())
"""

REPEATED_PUTS = """
import sys
from pathlib import Path
from dstack.store.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
for number in range(100_000):
    store.put(f"objects/{number}", b"%d " % number * 5_000)
    print(number, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(script: str, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, cwd=ROOT)


def killed(process: "subprocess.Popen[bytes]") -> bytes:
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=10)
    return output


def test_a_large_object_takes_little_memory(store: FolderStore) -> None:
    tracemalloc.start()
    try:
        store.put("objects/large", Zeros(64 * MIB))
        stream = store.open("objects/large")
        assert stream is not None
        with stream as file:
            size = sum(len(piece) for piece in iter(lambda: file.read(MIB), b""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 64 * MIB
    assert peak < 8 * MIB


def test_a_put_killed_in_the_middle_shows_nothing(store: FolderStore) -> None:
    process = started(ENDLESS_PUT, store.path)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == b"reading\n"
    killed(process)
    assert list(store.list("")) == []
    assert store.head("objects/k") is None
    assert names(store.path / ".incoming") != []  # what it left is there, and invisible


def test_puts_killed_anywhere_are_whole_or_absent(store: FolderStore) -> None:
    process = started(REPEATED_PUTS, store.path)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(50)]
    told += killed(process).split()
    for head in store.list("objects/"):
        number = int(head.key.removeprefix("objects/"))
        assert store.get(head.key, limit=MIB) == b"%d " % number * 5_000
    assert all(store.head(f"objects/{int(number)}") for number in told)


def test_what_killed_writers_left_is_swept_after_a_day(store: FolderStore) -> None:
    aside = store.path / ".incoming"
    aside.mkdir()
    (aside / "old").write_bytes(b"x")
    (aside / "young").write_bytes(b"x")
    day_ago = time.time() - incoming.LEFTOVER_SECONDS - 60
    os.utime(aside / "old", (day_ago, day_ago))
    store.put("k", b"x")
    assert names(aside) == ["young"]


def test_a_finished_put_leaves_nothing_aside(store: FolderStore) -> None:
    store.put("k", b"x")
    store.put("k", b"x", if_absent=True)
    store.put("l", b"x", if_absent=True)
    assert names(store.path / ".incoming") == []


def test_links_in_the_store_lead_nowhere(store: FolderStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes(b"secret")
    (store.path / "objects").symlink_to(outside)
    (store.path / "file").symlink_to(outside / "secret")
    for call in (
        lambda: store.put("objects/new", b"x"),
        lambda: store.get("objects/secret", limit=100),
        lambda: store.head("objects/secret"),
        lambda: store.delete("objects/secret"),
        lambda: list(store.list("objects/")),
        lambda: store.get("file", limit=100),
    ):
        with pytest.raises(Failed, match="stands in the way"):
            call()
    assert store.head("file") is None
    assert list(store.list("")) == []
    store.put("file", b"mine")
    assert names(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert store.get("file", limit=100) == b"mine"


def test_a_pipe_in_the_store_hangs_nobody(store: FolderStore) -> None:
    os.mkfifo(store.path / "pipe")
    assert store.get("pipe", limit=1) is None
    assert store.head("pipe") is None


def test_a_file_with_an_odd_name_is_not_listed(store: FolderStore) -> None:
    store.put("a/b", b"")
    (store.path / "a" / "new\nline").write_bytes(b"")
    Path(os.fsdecode(bytes(store.path) + b"/a/\xff")).write_bytes(b"")
    assert [head.key for head in store.list("a/")] == ["a/b"]


def test_a_folder_that_went_away_is_waited_for(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "disk")
    for _ in range(2):
        for call in (
            lambda: store.put("a/b", b"x"),
            lambda: store.get("a/b", limit=1),
            lambda: store.head("a/b"),
            lambda: store.delete("a/b"),
            lambda: list(store.list("a/")),
        ):
            with pytest.raises(Unavailable, match="is its disk mounted"):
                call()
        assert not (tmp_path / "disk").exists()
        (tmp_path / "disk").mkdir()
        store.put("a/b", b"x")
        (tmp_path / "disk").rename(tmp_path / "unmounted")
        (tmp_path / "unmounted" / "a" / "b").unlink()
        (tmp_path / "unmounted" / "a").rmdir()
        (tmp_path / "unmounted" / ".incoming").rmdir()
        (tmp_path / "unmounted").rmdir()


def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(store: FolderStore) -> None:
    store.put("k", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(Failed, match=r"is full .* free space there"):
            store.put("k", b"x" * 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.get("k", limit=100) == b"before"
    assert names(store.path / ".incoming") == []


def test_missing_rights_are_told() -> None:
    with pytest.raises(Failed, match="give this user the right"):
        FolderStore(Path("/sys")).put("k", b"x")  # where nobody, not even root, can create a folder


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Failed),
        (errno.EDQUOT, Failed),
        (errno.EACCES, Failed),
        (errno.EROFS, Failed),
        (errno.ELOOP, Failed),
        (errno.ENAMETOOLONG, Invalid),
        (errno.ENOENT, Unavailable),
        (errno.EIO, Unavailable),
        (errno.ESTALE, Unavailable),
        (errno.ENOTCONN, Unavailable),
    ],
)
def test_every_error_of_the_system_names_the_store(number: int, kind: type[DstackError]) -> None:
    with pytest.raises(kind, match="the store file:///s .*" + os.strerror(number)), explained("file:///s", "objects/k"):
        raise OSError(number, os.strerror(number))


def test_the_url_is_the_folders(tmp_path: Path) -> None:
    assert FolderStore(tmp_path / "a b").url == f"file://{tmp_path}/a%20b"
