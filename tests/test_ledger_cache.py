import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.push import RefUpdate
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from tests.repositories import bare, place, sh, work
from tests.test_ledger_push import ONE, TWO, commit, make


def no_head(path: Path) -> None:
    (path / "HEAD").unlink()


def torn_config(path: Path) -> None:
    (path / "config").write_text("[core\n")


def torn_ref(path: Path) -> None:
    (path / ONE).parent.mkdir(parents=True, exist_ok=True)
    (path / ONE).write_text("")


def torn_packed_refs(path: Path) -> None:
    shutil.rmtree(path / "refs/notes", ignore_errors=True)
    (path / "packed-refs").write_text("what is this\n")


def lost_objects(path: Path) -> None:
    for file in (path / "objects").rglob("*"):
        if file.is_file():
            file.unlink()


def torn_objects(path: Path) -> None:
    for file in (path / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(file.read_bytes()[:5])


def left_locks(path: Path) -> None:
    (path / "packed-refs.lock").touch()
    (path / ONE).parent.mkdir(parents=True, exist_ok=True)
    (path / f"{ONE}.lock").touch()


DAMAGES = (no_head, torn_config, torn_ref, torn_packed_refs, lost_objects, torn_objects, left_locks)


@pytest.mark.parametrize("fetching", [True, False])
@pytest.mark.parametrize("reopened", [True, False])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, damage: Callable[[Path], None], *, reopened: bool, fetching: bool
) -> None:
    here = place(work(tmp_path / "code"), tmp_path / "cache", fetching=fetching)
    made = here.submit()
    other = Cache(tmp_path / "other", here.cache.url)
    other.push(make(other, ONE), atomic=True)
    here.ledger.observe()
    other.push([RefUpdate(ONE, other.poll()[ONE], commit(other)), *make(other, TWO)], atomic=True)
    damage(tmp_path / "cache")
    if reopened:
        here = place(here.code.top, tmp_path / "cache", fetching=fetching)
    seen = here.ledger.observe()
    assert seen.refs == other.poll()
    assert seen.runs["fast-rabbit-1"].tip == made.root
    try:
        again = here.submit("again-1")
    except (
        Unavailable
    ):  # git, not we, has found the damage: the cache is made anew, and it is for the user to try again
        again = here.submit("again-1")
    assert again.root in here.ledger.observe().refs.values()


def test_a_cache_that_borrows_from_elsewhere_is_made_anew(tmp_path: Path) -> None:
    work(tmp_path / "code")
    place(tmp_path / "code", tmp_path / "cache").snapshot()
    (tmp_path / "code").rename(tmp_path / "moved")
    here = place(tmp_path / "moved", tmp_path / "cache")
    assert here.submit().root in here.ledger.observe().refs.values()


def test_what_crashes_leave_is_removed_after_a_day(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(bare(tmp_path / "r.git")))
    left = [tmp_path / name for name in ("cache/index-x", "cache.new-1", "cache.waste-1", "cache/index-y")]
    for path in left:
        path.mkdir()
    for path in left[:3]:
        os.utime(path, (0, 0))
    cache.tidy()
    assert [path.exists() for path in left] == [False, False, False, True]


def test_what_the_remote_deletes_is_gone_after_a_poll(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    one, two = Cache(tmp_path / "a", str(remote)), Cache(tmp_path / "b", str(remote))
    one.push(make(one, ONE, TWO), atomic=True)
    assert set(two.poll()) == {ONE, TWO}
    one.push([RefUpdate(TWO, one.poll()[TWO], None)], atomic=True)
    assert set(two.poll()) == {ONE}


def test_a_poll_does_not_fetch_code_snapshots_or_archive(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "update-ref", refs.ARCHIVE, "HEAD")
    sh(top, "tag", "v1")
    here = place(top, tmp_path / "cache")
    here.submit()
    assert set(Cache(tmp_path / "other", here.cache.url).poll()) == {refs.run_branch("fast-rabbit-1")}


def test_many_refs_end_in_one_file(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    one = Cache(tmp_path / "a", str(remote))
    oid = commit(one)
    one.push([RefUpdate(f"{refs.assignment('r')}{n}", None, oid) for n in range(300)], atomic=True)
    two = Cache(tmp_path / "b", f"file://{remote}")
    assert len(two.poll()) == 300
    assert not list((tmp_path / "b/refs/dstack").rglob("r*"))
    one.push([RefUpdate(f"{refs.assignment('r')}7", oid, None)], atomic=True)
    assert len(two.poll()) == 299


def test_a_cache_that_borrows_copies_nothing_of_the_user(tmp_path: Path) -> None:
    here = place(work(tmp_path / "code"), tmp_path / "cache")
    here.snapshot()
    assert here.cache.objects.has(here.code.head)
    assert not [path for path in (tmp_path / "cache/objects").glob("??/*") if path.is_file()]


def _open_and_poll(path: Path, url: str, rounds: int) -> int:
    for _ in range(rounds):
        cache = Cache(path, url)
        cache.poll()
        cache.renew()
    return len(Cache(path, url).poll())


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_processes_may_share_make_and_throw_away_a_cache(tmp_path: Path, scheme: str) -> None:
    remote = bare(tmp_path / "r.git")
    cache = Cache(tmp_path / "mine", str(remote))
    cache.push(make(cache, ONE, TWO), atomic=True)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(_open_and_poll, [(tmp_path / "shared/cache", f"{scheme}{remote}", 8)] * 3) == [2, 2, 2]
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["cache", "cache.lock"]


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match=r"the cache .*file/cache can't be created: Not a directory"):
        Cache(tmp_path / "file/cache", "x")


def test_tidying_keeps_what_is_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(bare(tmp_path / "r.git")))
    cache.push(make(cache, ONE), atomic=True)
    before = cache.poll()
    cache.tidy()
    assert cache.poll() == before
