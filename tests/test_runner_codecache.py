"""The runner's cache of code: each snapshot fetched once, verified, and the cache made anew where it is damaged."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.model.errors import Unavailable
from dstack.model.job import Reason
from dstack.model.refs import RunKey
from runner.codecache import KEEP, CodeCache
from runner.executor import StartFailed
from runner.workspace import Workspaces
from tests.checkouts import KEY, Remote, content, fill
from tests.repositories import sh


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    remote = Remote(tmp_path)
    fill(remote.work)
    return remote


@pytest.fixture
def spaces(tmp_path: Path, remote: Remote) -> Workspaces:
    return Workspaces(tmp_path / "spaces", CodeCache(tmp_path / "code.git", str(remote.path)))


def test_a_snapshot_is_fetched_once(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    spaces.release(spaces.checkout(KEY, snapshot))
    shutil.rmtree(remote.path)
    assert content(spaces.checkout(RunKey("other-run-1", "0" * 12), snapshot)) == content(remote.work)


def test_only_the_snapshot_itself_is_fetched(spaces: Workspaces, remote: Remote) -> None:
    (remote.work / "old").write_text("old")
    old = remote.snapshot()
    (remote.work / "old").unlink()
    spaces.checkout(KEY, remote.snapshot())
    assert subprocess.run(
        ["git", "cat-file", "-e", old], cwd=spaces._code.path, check=False, capture_output=True
    ).returncode


def test_a_replaced_snapshot_is_refused(spaces: Workspaces, remote: Remote) -> None:
    assigned = remote.snapshot()
    (remote.work / "train.py").write_text("evil\n")
    remote.snapshot()
    with pytest.raises(StartFailed, match="was replaced") as failed:
        spaces.checkout(KEY, assigned)
    assert failed.value.reason is Reason.CHECKOUT


def test_a_snapshot_that_is_gone_says_so(spaces: Workspaces, remote: Remote) -> None:
    snapshot = remote.snapshot()
    with pytest.raises(StartFailed, match="not on the remote"):
        spaces.checkout(RunKey("other-run-1", "0" * 12), snapshot)


def test_a_remote_that_is_away_is_waited_for(spaces: Workspaces, remote: Remote, tmp_path: Path) -> None:
    snapshot = remote.snapshot()
    remote.path.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match="can't be fetched"):
        spaces.checkout(KEY, snapshot)
    (tmp_path / "away").rename(remote.path)
    assert content(spaces.checkout(KEY, snapshot)) == content(remote.work)


def lose_objects(cache: Path) -> None:
    shutil.rmtree(cache / "objects")
    (cache / "objects").mkdir()


def garble_config(cache: Path) -> None:
    (cache / "config").write_text("[core\n")


def leave_locks(cache: Path) -> None:
    for name in ("shallow.lock", "packed-refs.lock", "config.lock", "objects/pack/tmp_pack_x"):
        (cache / name).write_text("")
    for path in (cache / "refs/kept").iterdir():
        path.unlink()


def lose_ready_mark(cache: Path) -> None:
    (cache / "whole").unlink()
    (cache / "HEAD").unlink()


@pytest.mark.parametrize("damage", [lose_objects, garble_config, leave_locks, lose_ready_mark, shutil.rmtree])
def test_a_damaged_cache_is_made_anew(
    spaces: Workspaces, remote: Remote, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    first = remote.snapshot()
    tree = spaces.checkout(KEY, first)
    damage(spaces._code.path)
    spaces.release(tree)
    (remote.work / "train.py").write_text("print('next')\n")
    key = RunKey("fast-rabbit-2", KEY.root12)
    assert content(spaces.checkout(key, remote.snapshot(key))) == content(remote.work)
    shutil.rmtree(tmp_path / "spaces")


def test_a_cache_forgets_what_was_not_used_for_long(spaces: Workspaces, remote: Remote) -> None:
    kept = spaces._code.path / "refs/kept"
    snapshot = remote.snapshot()
    spaces._code.fetch(KEY, snapshot)
    for number in range(KEEP + 3):
        (kept / f"{number:040x}").write_text(f"{snapshot}\n")
    os.utime(kept / snapshot, (1, 1))
    (remote.work / "train.py").write_text("print('next')\n")
    spaces._code.fetch(KEY, remote.snapshot())
    assert len(list(kept.iterdir())) == KEEP + 1
    assert not (kept / snapshot).exists()


@pytest.mark.lfs
def test_files_kept_in_lfs_are_there(remote: Remote, tmp_path: Path) -> None:
    sh(remote.work, "lfs", "install", "--local", "--skip-repo")
    sh(remote.work, "config", "core.hooksPath", "/dev/null")
    sh(remote.work, "lfs", "track", "*.bin")
    (remote.work / "big.bin").write_bytes(os.urandom(100_000))
    snapshot = remote.snapshot()
    sh(remote.work, "lfs", "push", "--all", remote.path.as_uri(), "main")
    spaces = Workspaces(tmp_path / "spaces", CodeCache(tmp_path / "code.git", str(remote.path)))
    assert (spaces.checkout(KEY, snapshot) / "big.bin").read_bytes() == (remote.work / "big.bin").read_bytes()
