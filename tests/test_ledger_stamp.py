"""A poll of a local remote that has not changed costs no fetch; one that has is never missed."""

from pathlib import Path

import pytest

from dstack.ledger import git, stamp
from dstack.ledger.cache import Cache
from dstack.ledger.push import RefUpdate
from dstack.model.codec import blob_id
from tests.repositories import bare, sh

NOTE = "refs/notes/dstack/fast-rabbit-1.0123456789ab/controller"
BRANCH = "refs/heads/dstack/runs/fast-rabbit-1"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty bare repository."""
    return bare(tmp_path / "remote.git")


def commit(cache: Cache, text: str) -> str:
    """A commit that nothing else has."""
    return cache.objects.write_commit(cache.objects.write_tree({}), [], text)


class Fetches:
    """Counts the fetches of a cache by the time of its last one."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    @property
    def count(self) -> int:
        return self.cache._fetches


def test_an_idle_poll_costs_no_fetch_until_it_is_old(remote: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(remote))
    first = cache.poll()
    assert [cache.poll() for _ in range(5)] == [first] * 5
    assert Fetches(cache).count == 1
    cache._fetched_at -= 10.0
    cache.poll()
    assert Fetches(cache).count == 2


def test_what_another_pushes_is_seen_at_once(remote: Path, tmp_path: Path) -> None:
    one, other = Cache(tmp_path / "one", str(remote)), Cache(tmp_path / "other", str(remote))
    one.poll()
    for number in range(20):
        oid = commit(other, str(number))
        old = other.poll().get(NOTE)
        assert other.push([RefUpdate(NOTE, old, oid)], atomic=True).won
        assert one.poll()[NOTE] == oid


def test_ones_own_push_needs_no_fetch(remote: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(remote))
    cache.poll()
    oid = commit(cache, "mine")
    cache.push([RefUpdate(NOTE, None, oid), RefUpdate(BRANCH, None, oid)], atomic=True)
    assert cache.poll() == {NOTE: oid, BRANCH: oid}
    cache.push([RefUpdate(NOTE, oid, None)], atomic=True)
    assert cache.poll() == {BRANCH: oid}
    assert Fetches(cache).count == 1


def test_what_another_pushed_beside_ones_own_push_is_not_missed(remote: Path, tmp_path: Path) -> None:
    one, other = Cache(tmp_path / "one", str(remote)), Cache(tmp_path / "other", str(remote))
    one.poll()
    other.poll()
    theirs, mine = commit(other, "theirs"), commit(one, "mine")
    other.push([RefUpdate(BRANCH, None, theirs)], atomic=True)
    one.push([RefUpdate(NOTE, None, mine)], atomic=True)
    assert one.poll() == {BRANCH: theirs, NOTE: mine}


def test_what_replaced_ones_own_push_is_not_missed(remote: Path, tmp_path: Path) -> None:
    """The stamp of our own ref is trusted only while it holds what we wrote."""
    cache, other = Cache(tmp_path / "cache", str(remote)), Cache(tmp_path / "other", str(remote))
    cache.poll()
    before = stamp.take(remote)
    mine, theirs = commit(cache, "mine"), commit(other, "theirs")
    cache.push([RefUpdate(NOTE, None, mine)], atomic=True)
    other.poll()
    other.push([RefUpdate(NOTE, mine, theirs)], atomic=True)
    assert not stamp.is_ours(remote, before, stamp.take(remote), {NOTE: mine})
    assert cache.poll() == {NOTE: theirs}


def test_packed_refs_are_seen(remote: Path, tmp_path: Path) -> None:
    one, other = Cache(tmp_path / "one", str(remote)), Cache(tmp_path / "other", str(remote))
    one.poll()
    other.poll()
    oid = commit(other, "x")
    other.push([RefUpdate(NOTE, None, oid)], atomic=True)
    assert one.poll() == {NOTE: oid}
    sh(remote, "pack-refs", "--all")
    sh(remote, "update-ref", "-d", NOTE)
    assert one.poll() == {}


def test_a_local_remote_is_tidied_now_and_then(remote: Path, tmp_path: Path) -> None:
    """Most pushes leave the remote's own tidying out; not all of them."""
    sh(remote, "config", "gc.auto", "1")
    sh(remote, "config", "gc.autoDetach", "false")
    # git estimates how many loose objects there are from those whose id begins with 17.
    for text in [text for text in map(str, range(2000)) if blob_id(text.encode()).startswith("17")][:3]:
        sh(remote, "hash-object", "-w", "--stdin", stdin=text.encode())
    cache = Cache(tmp_path / "cache", str(remote))
    old = None
    for number in range(60):
        oid = commit(cache, str(number))
        cache.push([RefUpdate(NOTE, old, oid)], atomic=True)
        old = oid
    assert list(remote.glob("objects/pack/*.pack"))
    assert git.output(git.Context(folder=remote), "rev-parse", NOTE).strip() == (old or "").encode()
