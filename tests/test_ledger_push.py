import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.push import LOCKED, Line, RefUpdate, batches, outcome, parse_porcelain, reason
from dstack.model.errors import Failed, Unavailable
from dstack.model.observation import Outcome
from tests.repositories import bare, hook, sh

ONE, TWO, THREE = (f"refs/notes/dstack/run-{n}.0123456789ab/controller" for n in (1, 2, 3))


def cache_of(remote: Path, name: str = "cache") -> Cache:
    return Cache(remote.parent / name, str(remote))


def commit(cache: Cache, text: str = "x") -> str:
    return cache.objects.write_commit(cache.objects.write_tree({}), [], text)


def make(cache: Cache, *names: str) -> list[RefUpdate]:
    return [RefUpdate(name, None, commit(cache)) for name in names]


def test_what_was_won_is_in_the_remote_and_in_the_cache(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    cache = Cache(tmp_path / "cache", f"file://{remote}")
    updates = make(cache, ONE, TWO)
    assert cache.push(updates, atomic=True).won
    assert cache.objects.refs() == {one.ref: one.new for one in updates} == cache.poll()
    moved = RefUpdate(ONE, updates[0].new, commit(cache))
    gone = RefUpdate(TWO, updates[1].new, None)
    assert cache.push([moved, gone], atomic=True).won
    assert cache.objects.refs() == {ONE: moved.new} == cache.poll()


def test_of_two_that_create_one_ref_the_first_wins(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    one, two = cache_of(remote, "a"), cache_of(remote, "b")
    assert one.push(make(one, ONE), atomic=True).won
    lost = two.push(make(two, ONE, TWO), atomic=True)
    assert lost.outcomes == {ONE: Outcome.LOST, TWO: Outcome.REFUSED}
    assert set(two.poll()) == {ONE}
    apart = two.push(make(two, ONE, TWO), atomic=False)
    assert apart.outcomes == {ONE: Outcome.LOST, TWO: Outcome.WON}


def test_the_same_id_pushed_twice_is_won_once(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    cache = cache_of(remote)
    updates = make(cache, ONE)
    assert cache.push(updates, atomic=True).won
    again = cache.push(updates, atomic=True)
    assert (again.outcomes, again.reasons) == ({ONE: Outcome.LOST}, {ONE: "the remote already had exactly this"})


def test_a_stale_lease_on_a_deletion_is_lost(tmp_path: Path) -> None:
    cache = cache_of(bare(tmp_path / "r.git"))
    first, second = make(cache, ONE)[0], commit(cache)
    assert cache.push([first], atomic=True).won
    assert cache.push([RefUpdate(ONE, first.new, second)], atomic=True).won
    assert cache.push([RefUpdate(ONE, first.new, None)], atomic=True).outcomes == {ONE: Outcome.LOST}
    assert cache.poll() == {ONE: second}


@pytest.mark.parametrize("atomic", [True, False])
def test_what_a_rule_refuses_is_told_with_its_words(tmp_path: Path, *, atomic: bool) -> None:
    remote = bare(tmp_path / "r.git")
    hook(remote, "update", f'test "$1" != "{ONE}" || {{ echo "not on a Friday" >&2; exit 1; }}')
    cache = cache_of(remote)
    pushed = cache.push(make(cache, ONE, TWO), atomic=atomic)
    assert pushed.outcomes == {ONE: Outcome.REFUSED, TWO: Outcome.REFUSED if atomic else Outcome.WON}
    assert "hook declined: not on a Friday" in pushed.reasons[ONE]
    assert set(cache.poll()) == (set() if atomic else {TWO})


@pytest.mark.parametrize("atomic", [True, False])
def test_a_lock_file_is_told_from_a_rule(tmp_path: Path, *, atomic: bool) -> None:
    remote = bare(tmp_path / "r.git")
    lock = remote / f"{ONE}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    cache = cache_of(remote)
    pushed = cache.push(make(cache, ONE, TWO), atomic=atomic)
    assert pushed.outcomes == {ONE: Outcome.REFUSED, TWO: Outcome.REFUSED if atomic else Outcome.WON}
    assert pushed.reasons[ONE].startswith(LOCKED)
    lock.unlink()
    assert cache.push(make(cache, ONE), atomic=atomic).won


def test_a_ref_that_moves_while_the_push_is_on_its_way_is_lost(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    cache = cache_of(remote)
    other = sh(remote, "-c", "user.name=A", "-c", "user.email=a@b.c", "commit-tree", "-m", "x", _empty_tree(remote))
    hook(remote, "pre-receive", f"unset GIT_QUARANTINE_PATH; git update-ref {ONE} {other}")
    pushed = cache.push(make(cache, ONE, TWO), atomic=True)
    assert pushed.outcomes == {ONE: Outcome.LOST, TWO: Outcome.REFUSED}
    assert cache.poll() == {ONE: other}


def test_a_remote_that_is_away_says_so(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    cache = cache_of(remote)
    remote.rename(tmp_path / "away")
    for act in (cache.poll, lambda: cache.push(make(cache, ONE), atomic=True)):
        with pytest.raises(Unavailable, match=r"r\.git can't be reached: .*does not appear to be a git repository"):
            act()
    (tmp_path / "away").rename(remote)
    assert cache.push(make(cache, ONE), atomic=True).won


def test_a_remote_without_atomic_pushes_is_refused(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    sh(remote, "config", "receive.advertiseAtomic", "false")
    cache = cache_of(remote)
    with pytest.raises(Failed, match="--atomic"):
        cache.push(make(cache, ONE), atomic=True)


def test_a_remote_that_dies_in_the_middle_leaves_the_outcome_open(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    hook(remote, "pre-receive", "kill -9 $PPID")
    cache = cache_of(remote)
    with pytest.raises(Unavailable):
        cache.push(make(cache, ONE), atomic=True)
    assert cache.poll() == {}
    (remote / "hooks/pre-receive").unlink()
    hook(remote, "reference-transaction", 'test "$1" != committed || kill -9 $PPID')
    updates = make(cache, ONE)
    with pytest.raises(Unavailable):
        cache.push(updates, atomic=True)
    assert cache.poll() == {ONE: updates[0].new}


def test_a_push_can_be_killed_at_any_moment(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    script = (
        "import sys; from pathlib import Path; from tests.test_ledger_push import *\n"
        f"c = Cache(Path({str(tmp_path / 'cache')!r}), {str(remote)!r})\n"
        "for n in range(1000):\n"
        "    print(c.push(make(c, f'refs/notes/dstack/k{n}.0123456789ab/controller'), atomic=True).won, flush=True)\n"
    )
    for delay in (0.0, 0.01, 0.02):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, process_group=0) as child:
            assert child.stdout
            child.stdout.readline()
            time.sleep(delay)
            child.kill()
        cache = Cache(tmp_path / "cache", str(remote))
        cache.poll()
        assert cache.push([RefUpdate(ONE, cache.poll().get(ONE), commit(cache))], atomic=True).won
        for ref in cache.poll():
            cache.push([RefUpdate(ref, cache.poll()[ref], None)], atomic=False)


def test_many_refs_fit_on_the_command_line(tmp_path: Path) -> None:
    cache = cache_of(bare(tmp_path / "r.git"))
    names = [f"refs/notes/dstack/a-run-with-quite-a-long-name-{n}.0123456789ab/controller" for n in range(1100)]
    oid = commit(cache)
    assert cache.push([RefUpdate(name, None, oid) for name in names], atomic=False).won
    assert set(cache.poll()) == set(names)
    assert cache.push([RefUpdate(name, oid, None) for name in names], atomic=True).won
    with pytest.raises(Failed, match="too many"):
        cache.push([RefUpdate(f"{ONE}{n}", None, oid) for n in range(5001)], atomic=True)


def _contend(remote: Path, name: str, rounds: int) -> list[str]:
    """Every round: create a ref that the others create too; those won."""
    cache = Cache(remote.parent / name, str(remote))
    won: list[str] = []
    for n in range(rounds):
        ref = f"refs/notes/dstack/race-{n}.0123456789ab/controller"
        other = f"refs/notes/dstack/race-{n}.0123456789ab/{name}"
        pushed = cache.push(make(cache, ref, other), atomic=True)
        if pushed.won:
            won.append(ref)
        else:
            assert Outcome.WON not in pushed.outcomes.values()
    return won


def test_of_many_who_race_one_wins_each_ref_and_its_siblings(tmp_path: Path) -> None:
    remote = bare(tmp_path / "r.git")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        wins = pool.starmap(_contend, [(remote, f"racer-{n}", 12) for n in range(3)])
    flat = [ref for won in wins for ref in won]
    assert len(flat) == len(set(flat))
    siblings = {ref for ref in Cache(tmp_path / "look", str(remote)).poll() if "racer" in ref}
    assert len(siblings) == len(flat)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*\ta:refs/x\t[new reference]", Outcome.WON),
        (" \ta:refs/x\t1..2", Outcome.WON),
        ("+\ta:refs/x\t1...2 (forced update)", Outcome.WON),
        ("-\t:refs/x\t[deleted]", Outcome.WON),
        ("=\ta:refs/x\t[up to date]", Outcome.LOST),
        ("!\ta:refs/x\t[rejected] (stale info)", Outcome.LOST),
        ("!\ta:refs/x\t[rejected] (fetch first)", Outcome.LOST),
        ("!\ta:refs/x\t[rejected] (atomic push failed)", Outcome.REFUSED),
        ("!\ta:refs/x\t[remote rejected] (hook declined)", Outcome.REFUSED),
    ],
)
def test_each_flag_has_one_meaning(text: str, expected: Outcome) -> None:
    assert outcome(parse_porcelain(f"To /somewhere\n{text}\nDone\n".encode())["refs/x"]) is expected


@pytest.mark.parametrize(
    ("told", "err", "expected"),
    [
        (
            "unpacker error",
            b"error: remote unpack failed: unable to create temporary object directory\n",
            "temporary object",
        ),
        (
            "atomic transaction failed",
            b"remote: error: cannot lock ref 'x': '/x.lock': Permission denied\n",
            "Permission denied",
        ),
        ("atomic transaction failed", b"remote: error: cannot lock ref 'x': '/x.lock': File exists.\n", LOCKED),
        ("hook declined", b"remote: no secrets, please\nerror: failed to push\n", "no secrets, please"),
        ("hook declined", b"", "hook declined"),
    ],
)
def test_a_refusal_tells_the_remotes_own_words(told: str, err: bytes, expected: str) -> None:
    assert expected in reason(Line("!", "remote rejected", told), err)


def test_words_that_are_no_status_line_are_passed_over() -> None:
    assert parse_porcelain(b"To x\nremote: *\thello\nDone\n\xff\n") == {}
    line = parse_porcelain(b"!\ta:refs/x\t[remote rejected] (a (nested) reason)\n")["refs/x"]
    assert line == Line("!", "remote rejected", "a (nested) reason")


def test_batches_hold_everything_once() -> None:
    updates = [RefUpdate(str(n), None, None) for n in range(5)]
    assert [len(batch) for batch in batches(updates, 2)] == [2, 2, 1]


def _empty_tree(repository: Path) -> str:
    return sh(repository, "hash-object", "-t", "tree", "-w", "--stdin", stdin=b"")
