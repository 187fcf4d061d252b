"""What the ledger's steps cost on a local bare remote: medians, with the git processes each step starts."""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.ledger.code import find_code
from dstack.ledger.snapshot import take_snapshot
from dstack.ledger.submit import submit
from dstack.ledger.worktree import Choice
from dstack.model.events import Resumed
from dstack.model.observation import AppendNotes
from tests.repositories import NOW, Place, bare, place, record_of, sh, spec, work

ROUNDS = 15


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = _world(Path(folder))
        steps: list[tuple[str, Callable[[int], object], Callable[[int], object]]] = [
            ("find the repository", _nothing, lambda _: find_code(here.code.top)),
            ("snapshot, nothing changed", _nothing, lambda _: _snapshot(here)),
            ("snapshot, a file changed", lambda n: _change(here, n), lambda _: _snapshot(here)),
            ("submit (root and push)", _nothing, lambda n: _submit(here, n)),
            ("poll, nothing new", _nothing, lambda _: here.ledger.observe()),
            ("poll, one run changed", lambda n: _elsewhere(here, n), lambda _: here.ledger.observe()),
            ("append to notes and push", _nothing, lambda n: _append(here, n)),
        ]
        print(f"{'step':32} {'ms':>8} {'git processes':>14}")
        for name, prepare, step in steps:
            _print(name, prepare, step)


def _world(folder: Path) -> Place:
    top = work(folder / "code")
    sh(top, "remote", "add", "origin", str(bare(folder / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    return place(top, folder / "cache")


def _print(name: str, prepare: Callable[[int], object], step: Callable[[int], object]) -> None:
    times: list[float] = []
    for n in range(ROUNDS):
        prepare(n)
        at = time.perf_counter()
        step(n)
        times.append(time.perf_counter() - at)
    prepare(ROUNDS)
    with _counted() as started:
        step(ROUNDS)
        count = started.read_text().count("\n")
    print(f"{name:32} {statistics.median(times) * 1000:8.1f} {count:14}")


@contextmanager
def _counted() -> Iterator[Path]:
    """A file that gets a line for each git command that is started by its name."""
    path = os.environ["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        shim, lines = Path(folder) / "git", Path(folder) / "lines"
        lines.touch()
        shim.write_text(f'#!/bin/sh\necho >> "{lines}"\nexec "{shutil.which("git")}" "$@"\n')
        shim.chmod(0o755)
        os.environ["PATH"] = f"{folder}:{path}"
        yield lines
        os.environ["PATH"] = path


def _nothing(_: int) -> None:
    """No preparation."""


def _snapshot(here: Place) -> object:
    return take_snapshot(here.code, here.cache, here.code.remote(), Choice())


def _change(here: Place, n: int) -> None:
    (here.code.top / "train.py").write_text(f"print({n})\n")


def _submit(here: Place, n: int) -> object:
    snapshot = take_snapshot(here.code, here.cache, here.code.remote(), Choice())
    return submit(here.ledger, snapshot, spec(f"run-{n}", snapshot.commit))


def _append(here: Place, n: int) -> None:
    seen = here.ledger.observe()
    record = record_of(seen, "run-0")
    event = Resumed(seq=n + 1, at=NOW, generation=n + 1, jobs=(), message="resumed")
    change = AppendNotes(key=record.key, writer="controller", events={record.tip: (event,)})
    pushed = here.ledger.commit([change], seen, atomic=True)
    if not pushed.won:
        sys.exit(str(pushed))


def _elsewhere(here: Place, n: int) -> None:
    """Somebody else pushes a commit to a note."""
    key = record_of(here.ledger.observe(), "run-0").key
    remote = Path(here.cache.url)
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    made = sh(remote, *identity, "commit-tree", "-m", f"{n}", "4b825dc642cb6eb9a060e54bf8d69288fbee4904")
    sh(remote, "update-ref", f"refs/notes/dstack/{key}/somebody", made)


if __name__ == "__main__":
    main()
