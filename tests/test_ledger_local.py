"""A remote on this machine is polled by reading its files: what a fetch would tell, and nothing missed."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.ledger import git
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.localrefs import MALFORMED, LocalRefs
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import refusal
from dstack.ledger.waking import Loop
from dstack.model import refs
from dstack.model.codec import blob_id
from dstack.model.errors import Unavailable
from dstack.model.observation import BrokenRun, DeleteRef, Outcome
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


def test_it_tells_what_a_fetch_would(remote: Path, tmp_path: Path) -> None:
    """Every kind of ref, loose and packed, ours and others'."""
    cache, reader = Cache(tmp_path / "cache", str(remote)), LocalRefs(remote)
    names = [
        NOTE,
        BRANCH,
        refs.CONFIG,
        refs.ID,
        refs.SEEN,
        refs.ARCHIVE,
        refs.assignment("otter"),
        refs.runner("otter"),
        refs.tag("latest"),
        "refs/heads/main",
        "refs/heads/dstackish",
        "refs/tags/v1",
        "refs/dstack/snapshots/fast-rabbit-1.0123456789ab",
        "refs/notes/commits",
    ]
    for count, name in enumerate(names):
        cache.push([RefUpdate(name, None, commit(cache, name))], atomic=True)
        if count == len(names) // 2:
            sh(remote, "pack-refs", "--all")
    clone = bare(tmp_path / "clone.git")
    sh(clone, "fetch", "--quiet", "--prune", "--no-tags", str(remote), *refs.POLLED)
    listed = sh(clone, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    assert reader.read() == dict(line.split() for line in listed)
    assert len(listed) == 8


def test_an_idle_poll_is_the_same_value(remote: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(remote))
    cache.push([RefUpdate(NOTE, None, commit(cache, "x"))], atomic=True)
    first = cache.poll()
    assert all(cache.poll() is first for _ in range(5))


def test_what_another_pushes_is_seen_at_once(remote: Path, tmp_path: Path) -> None:
    one, other = Cache(tmp_path / "one", str(remote)), Cache(tmp_path / "other", str(remote))
    for number in range(20):
        oid = commit(other, str(number))
        old = one.poll().get(NOTE)
        assert other.push([RefUpdate(NOTE, old, oid)], atomic=True).won
        assert one.poll()[NOTE] == oid
        assert one.objects.commit(oid).message.startswith(str(number))


def test_a_ref_that_is_packed_while_it_is_read_never_seems_gone(remote: Path, tmp_path: Path) -> None:
    """For a runner, an assignment that is gone means: kill everything."""
    cache, reader = Cache(tmp_path / "cache", str(remote)), LocalRefs(remote)
    old = None
    stop = threading.Event()
    seen: list[bool] = []
    cache.push([RefUpdate(NOTE, None, old := commit(cache, "0"))], atomic=True)

    def look() -> None:
        while not stop.is_set():
            found = reader.read()
            seen.append(found is not None and NOTE in found)

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(1, 15):
        cache.push([RefUpdate(NOTE, old, oid := commit(cache, str(number)))], atomic=True)
        sh(remote, "pack-refs", "--all")
        old = oid
    stop.set()
    looking.join()
    assert len(seen) > 100
    assert all(seen)


def test_a_remote_that_is_gone_is_away_and_comes_back(remote: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(remote))
    cache.push([RefUpdate(NOTE, None, oid := commit(cache, "x"))], atomic=True)
    remote.rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        cache.poll()
    (tmp_path / "elsewhere").rename(remote)
    assert cache.poll() == {NOTE: oid}


def test_what_only_git_can_read_is_fetched(remote: Path, tmp_path: Path) -> None:
    """A symbolic ref among ours: nobody makes one, but git would follow it."""
    cache = Cache(tmp_path / "cache", str(remote))
    cache.push([RefUpdate(BRANCH, None, oid := commit(cache, "x"))], atomic=True)
    sh(remote, "symbolic-ref", "refs/heads/dstack/runs/other-1", BRANCH)
    assert LocalRefs(remote).read() is None
    assert cache.poll() == {BRANCH: oid, "refs/heads/dstack/runs/other-1": oid}


@pytest.mark.parametrize("text", ["", "half an id", "0123", "f" * 39, "\0" * 41])
def test_a_malformed_ref_stands_in_nobody_elses_way(remote: Path, tmp_path: Path, text: str) -> None:
    """As a power cut leaves it: told, not taken for deleted, not moved; everything else goes on."""
    cache = Cache(tmp_path / "cache", str(remote))
    cache.push([RefUpdate(refs.runner("otter"), None, oid := commit(cache, "x"))], atomic=True)
    broken = refs.run_branch("lost-run-1")
    (remote / broken).parent.mkdir(parents=True)
    (remote / broken).write_text(text)
    ledger = GitLedger(cache)
    seen = ledger.observe()
    assert seen.refs == {refs.runner("otter"): oid, broken: MALFORMED}
    assert isinstance(seen.runs["lost-run-1"], BrokenRun)
    assert any(broken in problem and "holds no object" in problem for problem in seen.problems)
    moved = ledger.commit([DeleteRef(ref=broken)], seen, atomic=True)
    assert moved.outcomes == {broken: Outcome.REFUSED}
    assert "restore it" in moved.reasons[broken]
    other = sh(remote, "commit-tree", "-m", "y", sh(remote, "rev-parse", f"{oid}^{{tree}}"))
    # git itself takes no push over a broken ref: said in words that name it.
    refused = cache.push([RefUpdate(refs.runner("otter"), oid, other)], atomic=True)
    assert re.search(rf"the file of a ref.*{broken}", str(refusal(refused, str(remote))))
    (remote / refs.runner("otter")).write_text(f"{other}\n")
    assert ledger.observe().refs[refs.runner("otter")] == other
    (remote / broken).unlink()
    assert broken not in ledger.observe().refs
    assert cache.push([RefUpdate(refs.runner("otter"), other, oid)], atomic=True).won


def test_a_ref_whose_object_is_missing_stands_in_nobody_elses_way(remote: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", str(remote))
    broken = refs.run_branch("lost-run-1")
    (remote / broken).parent.mkdir(parents=True)
    (remote / broken).write_text("1" * 40 + "\n")
    ledger = GitLedger(cache)
    assert isinstance(ledger.observe().runs["lost-run-1"], BrokenRun)
    oid = sh(remote, "commit-tree", "-m", "x", sh(remote, "hash-object", "-t", "tree", "-w", "/dev/null"))
    sh(remote, "update-ref", refs.runner("otter"), oid)
    seen = ledger.observe()
    assert seen.refs[refs.runner("otter")] == oid
    assert isinstance(seen.runs["lost-run-1"], BrokenRun)


def test_a_watched_remote_may_come_later_and_be_made_anew(tmp_path: Path) -> None:
    remote, steps = tmp_path / "remote.git", 0

    def step() -> None:
        nonlocal steps
        steps += 1

    loop = Loop(step, name="test", poll=600.0, watched=remote)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for text in ("first", "second"):
            bare(remote)
            _until_quiet(lambda: steps)
            before = steps
            cache = Cache(tmp_path / text, str(remote))
            cache.push([RefUpdate(NOTE, None, commit(cache, text))], atomic=True)
            _until(lambda: steps > before)  # noqa: B023 (it is called here)
            shutil.rmtree(remote)
            _until_quiet(lambda: steps)
    finally:
        loop.stop()
        thread.join()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def _until_quiet(count: Callable[[], int]) -> None:
    """Until nothing was counted for longer than a watcher needs to look again."""
    while True:
        before = count()
        time.sleep(0.7)
        if count() == before:
            return


def test_packed_refs_are_seen(remote: Path, tmp_path: Path) -> None:
    one, other = Cache(tmp_path / "one", str(remote)), Cache(tmp_path / "other", str(remote))
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
