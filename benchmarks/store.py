"""Measures the folder store and artifact sets on this machine: `python -m benchmarks.store [FOLDER]`. Medians."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dstack.store.artifacts import Tree, place, save
from dstack.store.folder import FolderStore
from dstack.store.log_writer import LogWriter

MIB = 1024 * 1024
LARGE = 64 * MIB


def main() -> None:
    """Measure beneath the folder given, else beneath the system's folder for temporary files."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        base = Path(folder)
        (base / "store").mkdir()
        store = FolderStore(base / "store")
        small_objects(store)
        large_objects(store)
        sets(store, base)


def small_objects(store: FolderStore) -> None:
    """1 KiB in, out, looked at; a chunk of a log."""
    data = b"x" * 1024
    report("put 1 KiB", median(lambda n: store.put(f"objects/{n}", data), 300))
    report("put 1 KiB if absent", median(lambda n: store.put(f"absent/{n}", data, if_absent=True), 300))
    report("get 1 KiB", median(lambda n: store.get(f"objects/{n}", limit=MIB), 300))
    report("head", median(lambda n: store.head(f"objects/{n}"), 300))
    report("list 300", median(lambda _: list(store.list("objects/")), 20))
    writer = LogWriter(store, "logs/run/job/1")
    report("log chunk of 100 lines", median(lambda n: chunk(writer, n), 100))


def chunk(writer: LogWriter, number: int) -> None:
    """A chunk as a busy job makes it."""
    writer.append((1, number + line / 100, b"a line of output of some length\n") for line in range(100))
    writer.flush()


class Zeros:
    """A source of as many as are LARGE."""

    size = LARGE

    def read(self, _start: int, size: int) -> bytes:
        """As Source."""
        return bytes(size)


def large_objects(store: FolderStore) -> None:
    """64 MiB as a stream."""
    put = median(lambda n: store.put(f"large/{n}", Zeros()), 5)
    get = median(lambda n: read(store, f"large/{n}"), 5)
    report("put 64 MiB", put, f"{64 / put:.0f} MiB/s")
    report("get 64 MiB", get, f"{64 / get:.0f} MiB/s")


def read(store: FolderStore, key: str) -> None:
    """All of an object, in pieces."""
    stream = store.open(key)
    if stream is not None:
        with stream as file:
            while file.read(MIB):
                pass


def sets(store: FolderStore, base: Path) -> None:
    """Artifact sets of one small file, of a thousand, of one large file."""
    job = base / "job"
    job.mkdir()
    report("save one small file", median(lambda n: one_file(store, job, n), 50))
    many = median(lambda n: many_files(store, job, n), 3)
    report("save 1,000 x 4 KiB", many, "with writing the files")
    report("save 1,000 x 4 KiB again", median(lambda _: save(store, Tree(root=job), ("many",)), 3), "nothing to send")
    saved = save(store, Tree(root=job), ("many",))
    report("place 1,000 x 4 KiB", median(lambda n: placed(store, base / f"next{n}", saved.digest), 3))
    (job / "large").write_bytes(b"y" * LARGE)
    report("save 64 MiB", median(lambda n: changed(store, job, n), 3))
    saved = save(store, Tree(root=job), ("large",))
    report("place 64 MiB", median(lambda n: placed(store, base / f"next{n}", saved.digest), 3))


def one_file(store: FolderStore, job: Path, number: int) -> None:
    """A set of one file, new each time."""
    (job / "one").write_text(str(number))
    save(store, Tree(root=job), ("one",))


def many_files(store: FolderStore, job: Path, turn: int) -> None:
    """A set of a thousand files, new each time."""
    (job / "many").mkdir(exist_ok=True)
    for number in range(1000):
        (job / "many" / str(number)).write_bytes(b"%d %d " % (turn, number) + b"x" * 4096)
    save(store, Tree(root=job), ("many",))


def changed(store: FolderStore, job: Path, number: int) -> None:
    """A large file, new each time."""
    with (job / "large").open("r+b") as file:
        file.write(b"%d" % number)
    save(store, Tree(root=job), ("large",))


def placed(store: FolderStore, folder: Path, digest: str | None) -> None:
    """A set in a new folder."""
    folder.mkdir(exist_ok=True)
    place(store, str(digest), Tree(root=folder))


def median(action: Callable[[int], object], times: int) -> float:
    """Seconds."""
    taken = []
    for number in range(times):
        start = time.perf_counter()
        action(number)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def report(what: str, seconds: float, more: str = "") -> None:
    """One line."""
    print(f"{what:28} {seconds * 1000:10.2f} ms  {more}".rstrip())


if __name__ == "__main__":
    main()
