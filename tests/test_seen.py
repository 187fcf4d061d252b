"""The memory of triggers: a tree that reads well, round-trips, and does no harm whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import seen as memory
from dstack.model.errors import Invalid
from dstack.model.seen import Made, Move, Seen, Trouble, from_files, joined, path_of, pull_of, schedule_path, to_files
from dstack.model.triggers import Schedule
from tests.triggers import commit_id

A, B = commit_id("a"), commit_id("b")
NIGHTLY = schedule_path("nightly", Schedule(cron="0 3 * * *"))
TROUBLE = Trouble(mark=B, reason="denied", refusals=3, workflows=("test",))
MADE = Made(keys=("k1",), before={"heads/feature/x": None}, against=B)
SEEN = Seen(
    oid=commit_id("seen"),
    marks={"heads/feature/x": A, "tags/v1": B, "pulls/12": A, NIGHTLY: "2026-11-23T03:00:00Z"},
    troubles={"heads/feature/x": TROUBLE},
    made={"heads/feature/x": MADE},
)


def test_the_tree_reads_well() -> None:
    assert to_files(SEEN) == {
        "heads/feature/x": f"{A}\n".encode(),
        "tags/v1": f"{B}\n".encode(),
        "pulls/12": f"{A}\n".encode(),
        NIGHTLY: b"2026-11-23T03:00:00Z\n",
        "troubles/heads/feature/x": f'{{"mark":"{B}","reason":"denied","refusals":3,"workflows":["test"]}}'.encode(),
        "made/heads/feature/x": f'{{"against":"{B}","before":{{"heads/feature/x":null}},"keys":["k1"]}}'.encode(),
    }
    assert NIGHTLY.startswith("schedule/nightly.")


def test_another_cron_or_zone_is_another_schedule() -> None:
    paths = {
        schedule_path("a", Schedule(cron="0 3 * * *")),
        schedule_path("a", Schedule(cron="0 4 * * *")),
        schedule_path("a", Schedule(cron="0 3 * * *", zone="Europe/Berlin")),
        schedule_path("b", Schedule(cron="0 3 * * *")),
    }
    assert len(paths) == 4


OIDS = st.sampled_from([A, B, "0" * 64])
NAMES = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and "/" not in text)
PATHS = st.one_of(
    NAMES.map("heads/{}".format), NAMES.map("tags/{}".format), st.integers(1, 10**12 - 1).map("pulls/{}".format)
)
TROUBLES = st.builds(
    Trouble.of, OIDS, st.text(max_size=2000), refusals=st.integers(0, 5), workflows=st.lists(NAMES, max_size=3)
)


MADES = st.builds(
    lambda path, mark, against: (path, Made(keys=("k",), before={path: mark}, against=against)),
    PATHS, st.one_of(st.none(), OIDS), st.one_of(st.none(), OIDS),
)  # fmt: skip


@given(st.dictionaries(PATHS, OIDS), st.dictionaries(PATHS, TROUBLES, max_size=3), st.lists(MADES, max_size=3))
def test_what_is_written_is_read(
    marks: dict[str, str], troubles: dict[str, Trouble], made: list[tuple[str, Made]]
) -> None:
    seen = Seen(oid=A, marks=marks, troubles=troubles, made=dict(made))
    assert from_files(to_files(seen), A) == seen


TAKEN = b'{"keys":[],"before":{"heads/x":null},"against":null}'


@given(
    st.dictionaries(
        st.one_of(
            PATHS,
            st.sampled_from([NIGHTLY, "troubles/heads/x", "troubles/", "made/heads/x", "made/", "x", "heads/"]),
            st.text(),
        ),
        st.one_of(
            st.binary(max_size=100), st.sampled_from([A.encode(), b"{}", b'{"mark":"\\u001b[0m","reason":""}', TAKEN])
        ),
    )
)
def test_no_tree_does_harm(files: dict[str, bytes]) -> None:
    seen = from_files(files)
    read = {*seen.marks, *(f"troubles/{path}" for path in seen.troubles), *(f"made/{path}" for path in seen.made)}
    assert read | seen.unreadable == set(files)
    again = from_files(to_files(seen))
    assert (again.marks, again.troubles, again.faults) == (seen.marks, seen.troubles, ())
    shown = [text for trouble in seen.troubles.values() for text in (trouble.mark, trouble.reason, *trouble.workflows)]
    assert all(map(str.isprintable, [*shown, *seen.faults]))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("heads/x", b"main"),
        ("heads/x", b""),
        ("heads/x", A.encode() + b"\nmore"),
        ("heads/x", A.upper().encode()),
        ("heads/x", b"a" * 10_000_000),
        (f"heads/{'x' * 2000}", A.encode()),
        ("pulls/one", A.encode()),
        (NIGHTLY, A.encode()),
        (NIGHTLY, b"2026-02-30T03:00:00Z"),
        (NIGHTLY, b"2026-11-23 03:00"),
        (NIGHTLY, b"1000-01-01T00:00:00Z"),
        ("schedule/nightly", b"2026-11-23T03:00:00Z"),
        ("other/x", A.encode()),
        ("made/heads/x", b'{"keys":[],"before":{},"against":null}'),
        ("made/heads/x", b'{"keys":[],"before":{"heads/x":"main"},"against":null}'),
        ("made/heads/x", b'{"keys":[],"before":{"heads/x":null},"against":"main"}'),
        ("made/heads/x", b'{"keys":[],"before":{"heads/x":null,"other":null},"against":null}'),
    ],
)
def test_what_makes_no_sense_is_told_and_known_to_be_unreadable(path: str, content: bytes) -> None:
    seen = from_files({path: content, "heads/good": A.encode()})
    assert seen.marks == {"heads/good": A}
    assert seen.unreadable == {path}
    (fault,) = seen.faults
    assert fault.startswith("refs/dstack/seen: ")
    assert len(fault) < 300


def test_bad_troubles_are_told_and_left_out() -> None:
    files = {f"troubles/heads/{n}": b"{" for n in range(100)}
    seen = from_files(files)
    assert not seen.troubles
    assert seen.unreadable == set(files)
    assert len(seen.faults) == 20


def test_a_tree_without_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_SEEN", 2)
    with pytest.raises(Invalid, match="3 entries; at most 2 are read: delete refs/dstack/seen"):
        from_files({f"heads/{n}": A.encode() for n in range(3)})


def test_a_move_says_what_changes_in_the_tree() -> None:
    move = Move(
        marks={"heads/a": A, "heads/b": None},
        troubles={"heads/a": None, "heads/c": TROUBLE},
        made={"heads/a": None, "heads/feature/x": MADE},
    )
    assert move.files() == {
        "heads/a": f"{A}\n".encode(),
        "heads/b": None,
        "troubles/heads/a": None,
        "troubles/heads/c": to_files(SEEN)["troubles/heads/feature/x"],
        "made/heads/a": None,
        "made/heads/feature/x": to_files(SEEN)["made/heads/feature/x"],
    }


MOVES = st.builds(
    Move,
    marks=st.dictionaries(st.sampled_from(["heads/a", "heads/b", "tags/a"]), st.sampled_from([A, B, None])),
    troubles=st.dictionaries(st.sampled_from(["heads/a", "heads/b"]), st.sampled_from([TROUBLE, None])),
    made=st.sampled_from([{}, {"heads/feature/x": MADE}, {"heads/feature/x": None}]),
)


@given(st.lists(MOVES, max_size=5))
def test_moves_one_by_one_joined_or_as_files_are_the_same(moves: list[Move]) -> None:
    one_by_one = Seen()
    files = to_files(one_by_one)
    for move in moves:
        one_by_one = move.applied(one_by_one)
        files = {path: text for path, text in {**files, **move.files()}.items() if text is not None}
    assert joined(moves).applied(Seen()) == one_by_one
    assert from_files(files) == one_by_one


@pytest.mark.parametrize(
    ("ref", "path", "pull"),
    [
        ("refs/heads/main", "heads/main", None),
        ("refs/heads/a/b", "heads/a/b", None),
        ("refs/heads/dstack", "heads/dstack", None),
        ("refs/heads/dstack/runs/x", None, None),
        ("refs/tags/v1", "tags/v1", None),
        ("refs/tags/dstack/x", None, None),
        ("refs/pull/12/head", "pulls/12", 12),
        ("refs/pull/012/head", None, None),
        ("refs/pull/12/merge", None, None),
        ("refs/merge-requests/3/head", "pulls/3", 3),
        ("refs/pull-requests/4/from", "pulls/4", 4),
        ("refs/notes/commits", None, None),
        ("refs/heads/" + "x" * 2000, None, None),
        ("refs/heads/\udc80", None, None),
        ("HEAD", None, None),
    ],
)
def test_which_refs_are_remembered_where(ref: str, path: str | None, pull: int | None) -> None:
    assert path_of(ref) == path
    if path:
        assert pull_of(path) == pull
