"""Artifact sets in S3: cut off, resumed, counted on the wire."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.store.artifacts import Tree, download, save
from dstack.store.location import open_store
from tests.artifact_sets import shape
from tests.forwarder import Forwarder
from tests.s3_server import S3Server

MIB = 1024 * 1024
SAVE = (
    "import sys; from pathlib import Path; from dstack.store.artifacts import Tree, save; "
    "from dstack.store.location import open_store; "
    "save(open_store(sys.argv[1], 'r1', create=True), Tree(root=Path(sys.argv[2])), ('set',))"
)


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Forwarder]:
    made = Forwarder(("127.0.0.1", s3.ports["s3"]))
    yield made
    made.close()


@pytest.fixture
def url(s3: S3Server, wire: Forwarder) -> str:
    return s3.url(s3.bucket(), endpoint_url=f"http://127.0.0.1:{wire.port}")


def make(folder: Path) -> Tree:
    (folder / "set").mkdir(parents=True)
    for number in range(500):
        (folder / "set" / f"small {number}").write_bytes(os.urandom(4096))
    for number in range(5):
        (folder / "set" / f"medium {number}").write_bytes(os.urandom(6 * MIB))
    with (folder / "set" / "large").open("wb") as file:
        for _ in range(160):
            file.write(os.urandom(MIB))
    return Tree(root=folder)


def test_of_a_save_that_was_killed_only_the_rest_is_sent(tmp_path: Path, url: str, wire: Forwarder) -> None:
    tree = make(tmp_path / "job")
    total = sum(path.stat().st_size for path in (tmp_path / "job" / "set").iterdir())
    wire.rate = 8 * MIB
    with subprocess.Popen([sys.executable, "-c", SAVE, url, str(tmp_path / "job")]) as process:
        while wire.upstream < 130 * MIB:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    wire.cut()
    wire.rate, before = None, wire.upstream
    wire.heal()
    store = open_store(url, "r1", create=False)
    assert list(store.list("manifests/")) == []
    told: list[tuple[int, int]] = []
    manifest = save(store, tree, ("set",), progress=lambda done, all_: told.append((done, all_))).manifest
    assert manifest is not None
    assert told[-1] == (total, total)
    assert wire.upstream - before < total - 130 * MIB + 70 * MIB  # what was under way in eight parts is sent again
    between = wire.upstream
    assert save(store, tree, ("set",)).manifest == manifest
    assert wire.upstream - between < MIB
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")


def test_many_small_files_make_few_requests(tmp_path: Path, url: str, wire: Forwarder) -> None:
    (tmp_path / "job" / "set").mkdir(parents=True)
    for number in range(2000):
        (tmp_path / "job" / "set" / str(number)).write_bytes(os.urandom(1024))
    store = open_store(url, "r1", create=True)
    before = wire.upstream
    manifest = save(store, Tree(root=tmp_path / "job"), ("set",)).manifest
    assert manifest is not None
    assert wire.upstream - before < manifest.size + MIB
    assert len(list(store.list("objects/"))) == len(manifest.packs) <= 3
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "job" / "set")


ROUND_TRIP = (
    "import sys; from pathlib import Path; from dstack.store.artifacts import Tree, download, save; "
    "from dstack.store.location import open_store; store = open_store(sys.argv[1], 'r1', create=True); "
    "saved = save(store, Tree(root=Path(sys.argv[2])), ('set',)); "
    "download(store, saved.manifest, Path(sys.argv[3])); "
    "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)


def test_memory_stays_bounded_whatever_the_size(tmp_path: Path, s3: S3Server) -> None:
    (tmp_path / "job" / "set").mkdir(parents=True)
    for name, size in {"large": 160, **{f"medium {number}": 8 for number in range(16)}}.items():
        with (tmp_path / "job" / "set" / name).open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
    line = [sys.executable, "-c", ROUND_TRIP, s3.url(), str(tmp_path / "job"), str(tmp_path / "down")]
    peak = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    assert int(peak) < 250 * 1024  # KiB
    assert (tmp_path / "down" / "set" / "large").stat().st_size == 160 * MIB
