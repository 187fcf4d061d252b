"""A snapshot of 5,000 files with 10 changed, against git's own `git add -A` and `git write-tree` on a copied index."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dstack.ledger.worktree import Choice
from tests.repositories import Place, bare, place, sh, work

FILES, CHANGED, ROUNDS = 5_000, 10, 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = _world(Path(folder))
        ours, theirs = [], []
        for n in range(ROUNDS):
            _change(here.code.top, n)
            theirs.append(_timed(lambda: _git_alone(here.code.top, Path(folder) / "index")))
            _change(here.code.top, n + ROUNDS)
            ours.append(_timed(here.snapshot))
        committed = statistics.median(_timed(lambda: here.snapshot(Choice(only_committed=True))) for _ in range(ROUNDS))
    mine, gits = statistics.median(ours), statistics.median(theirs)
    print(f"git add -A and write-tree       {gits * 1000:7.1f} ms")
    print(f"snapshot (with find_code)       {mine * 1000:7.1f} ms")
    print(f"beyond git's own                {(mine - gits) * 1000:7.1f} ms; the budget is 200 ms")
    print(f"snapshot --only-committed       {committed * 1000:7.1f} ms")


def _world(folder: Path) -> Place:
    top = work(folder / "code")
    for n in range(FILES):
        path = top / f"package{n % 100}/module{n}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"value = {n}\n" * 20)
    sh(top, "add", "--all")
    sh(top, "commit", "--quiet", "-m", "many files")
    sh(top, "remote", "add", "origin", str(bare(folder / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    return place(top, folder / "cache")


def _change(top: Path, n: int) -> None:
    for number in range(CHANGED // 2):
        (top / f"package{number}/module{number}.py").write_text(f"changed = {n}\n")
        (top / f"package{number}/new{number}.py").write_text(f"new = {n}\n")


def _git_alone(top: Path, index: Path) -> None:
    shutil.copy2(top / ".git/index", index)
    environment = {**os.environ, "GIT_INDEX_FILE": str(index)}
    for args in (["add", "--all"], ["write-tree"]):
        subprocess.run(["git", *args], cwd=top, env=environment, capture_output=True, check=True)


def _timed(step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
