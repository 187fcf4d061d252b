"""Small pure parts: the token bucket, independent groups, deleted branches, names of refs, settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import refs
from dstack.model.bucket import Bucket
from dstack.model.errors import Invalid
from dstack.model.groups import independent_groups
from dstack.model.observation import AppendNotes, Change, DeleteRef, Notes, Observation, SetAssignments
from dstack.model.orphans import Absences
from dstack.model.pool import Attempt
from dstack.model.refs import RunKey
from dstack.model.settings import Settings, parse_settings, settings_text

NAMES = st.from_regex(refs._NAME, fullmatch=True).filter(refs.is_name)
KEY = RunKey("fast-rabbit-1", "a" * 12)


@given(st.lists(st.floats(0, 5), max_size=40), st.floats(0.05, 2), st.integers(1, 5))
def test_no_more_than_the_burst_and_one_an_interval(gaps: list[float], interval: float, burst: int) -> None:
    bucket, now, taken = Bucket.full(interval=interval, burst=burst, now=0.0), 0.0, 0
    for gap in gaps:
        now += gap
        if bucket.ready_at(now) <= now:
            bucket, taken = bucket.take(now), taken + 1
    assert taken <= burst + now / interval + 1e-6


def test_a_token_comes_after_the_interval() -> None:
    bucket = Bucket.full(interval=2.0, burst=1, now=0.0).take(0.0)
    assert bucket.ready_at(0.5) == pytest.approx(2.0)
    assert bucket.take(0.5).ready_at(0.5) == pytest.approx(4.0)


def attempt(run: str) -> Attempt:
    """An attempt of a run."""
    return Attempt(
        repository="repo",
        run=run,
        root="r",
        snapshot="s",
        job="j",
        attempt=1,
        instance="i",
        nonce="n",
        log="l",
        store="s",
    )


def notes(run: str) -> AppendNotes:
    """A decision about a run."""
    return AppendNotes(key=RunKey.from_text(run), writer="controller", events={})


def test_what_touches_one_run_or_one_runner_goes_together() -> None:
    one, two, three = (f"run-{n}.{n * 12}" for n in "123")
    both = SetAssignments(runner="otter", attempts={"j.1": attempt(one), "k.1": attempt(two)}, jobs={})
    alone = SetAssignments(runner="heron", attempts={"l.1": attempt(three)}, jobs={})
    deleted = DeleteRef(ref="refs/x")
    changes: list[Change] = [notes(one), notes(two), notes(three), both, alone, deleted]
    groups = {frozenset(change.ref for change in group) for group in independent_groups(changes)}
    assert groups == {
        frozenset({notes(one).ref, notes(two).ref, both.ref}),
        frozenset({notes(three).ref, alone.ref}),
        frozenset({"refs/x"}),
    }


def observation(*, job: str = "b" * 12) -> Observation:
    """Notes of a run whose branch is not there."""
    return Observation(
        refs={},
        repository="repo",
        config=None,
        runs={},
        notes={KEY: {"controller": Notes(oid="1", notes={}, jobs={job: job + "0" * 28})}},
        assignments={},
        runners={},
    )


def test_a_branch_that_is_gone_is_deleted_only_after_a_lease_and_two_polls() -> None:
    seen = observation()
    first = Absences().seen(seen, 0.0)
    assert first.kept(60.0, 100.0) == {str(KEY)}
    second = first.seen(seen, 59.0)
    assert second.kept(60.0, 59.0) == {str(KEY)}
    assert second.forgotten(seen, (), 60.0, 59.0) == ()
    assert second.kept(60.0, 60.0) == frozenset()


def test_its_notes_go_when_no_heartbeat_holds_an_attempt_of_it() -> None:
    seen = observation()
    gone = Absences().seen(seen, 0.0).seen(seen, 60.0)
    assert gone.forgotten(seen, ["b" * 12 + ".1"], 60.0, 60.0) == ()
    assert gone.forgotten(seen, ["c" * 12 + ".1"], 60.0, 60.0) == (DeleteRef(ref=refs.note(KEY, "controller")),)


@given(NAMES, st.from_regex(r"[0-9a-f]{12}", fullmatch=True), NAMES)
def test_ref_names_round_trip(name: str, root12: str, writer: str) -> None:
    key = RunKey(name, root12)
    assert RunKey.from_text(str(key)) == key
    assert refs.parse_run_branch(refs.run_branch(name)) == name
    assert refs.parse_note(refs.note(key, writer)) == (key, writer)
    assert refs.parse_assignment(refs.assignment(name)) == name
    assert refs.parse_runner(refs.runner(name)) == name


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main",
        "refs/heads/dstack/runs/",
        "refs/heads/dstack/runs/a/b",
        "refs/heads/dstack/runs/UPPER",
        "refs/heads/dstack/runs/a--b",
        "refs/notes/dstack/a.0123456789ab",
        "refs/notes/dstack/a/otter",
        "refs/notes/dstack/a.0123456789ab/x/y",
        "refs/dstack/assignments/-a",
    ],
)
def test_other_refs_are_nobodys(ref: str) -> None:
    parsers = (refs.parse_run_branch, refs.parse_note, refs.parse_assignment, refs.parse_runner)
    assert [parse(ref) for parse in parsers] == [None] * 4


@pytest.mark.parametrize("text", ["", "A", "a" * 64, "-a", "a-", "a--b", "a b", "ä", "a/b", "a\n"])
def test_names_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        refs.check_name(text, "run")


def test_no_runner_is_called_controller() -> None:
    with pytest.raises(Invalid, match="can't be called"):
        refs.check_name("controller", "runner")
    assert refs.check_name("controller", "run") == "controller"


@given(
    st.builds(
        Settings,
        store=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lease=st.floats(1, 86400),
    )
)
def test_settings_round_trip(settings: Settings) -> None:
    assert parse_settings(settings_text(settings).encode()) == settings


# Each of the last two ends a process that reads it with yaml's own loader: by its stack, by its memory.
DEEP = b"[" * 200_000
MERGED = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (n + 1, n + 1, b",".join([b"*a%d" % n] * 9)) for n in range(12)
)


@pytest.mark.parametrize(
    "text",
    [b"lease: x", b"lease: 0", b"stor: x", b"- a", b"{", b"a: &a [*a]", b"x" * 300_000, b"\xff", DEEP, MERGED],
)
def test_broken_settings_are_told(text: bytes) -> None:
    with pytest.raises(Invalid, match=r"config\.yaml"):
        parse_settings(text)
