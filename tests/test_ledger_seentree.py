"""The memory of triggers as a tree in git: what is written is read again, whatever stood there."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.ledger.objects import FILE, FOLDER, Entry, Objects, create
from dstack.ledger.seentree import read_seen, write_seen
from dstack.model.errors import Invalid
from dstack.model.seen import Move, Seen, Trouble

A, B = "a" * 40, "b" * 40


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """An empty repository of ours."""
    create(tmp_path / "ours", [])
    return Objects.open(tmp_path / "ours")


def test_what_is_written_is_read_again(objects: Objects) -> None:
    trouble = Trouble.of(A, "no", refusals=2, workflows=["train"])
    move = Move(
        marks={"heads/main": A, "heads/a/b/c": B, "tags/v1": B, "pulls/7": A}, troubles={"heads/a/b/c": trouble}
    )
    oid = write_seen(objects, None, move)
    assert read_seen(objects, oid) == move.applied(Seen(), oid)


def test_a_change_keeps_what_it_does_not_name_and_follows_the_commit_before(objects: Objects) -> None:
    first = write_seen(objects, None, Move(marks={"heads/main": A, "heads/x/y": A}))
    second = write_seen(objects, first, Move(marks={"heads/main": B, "heads/x/y": None}))
    assert read_seen(objects, second).marks == {"heads/main": B}
    assert objects.commit(second).parents == (first,)
    assert b"x" not in objects.tree(objects.tree(objects.commit(second).tree)[b"heads"].oid), "no empty folder is left"


@pytest.mark.parametrize(("before", "after"), [("heads/a", "heads/a/b"), ("heads/a/b", "heads/a")])
def test_a_branch_may_come_where_a_folder_of_branches_was_and_the_other_way_round(
    objects: Objects, before: str, after: str
) -> None:
    first = write_seen(objects, None, Move(marks={before: A}))
    for move in (Move(marks={before: None, after: B}), Move(marks={after: B, before: None})):
        assert read_seen(objects, write_seen(objects, first, move)).marks == {after: B}


def test_no_two_commits_are_alike(objects: Objects) -> None:
    move = Move(marks={"heads/main": A})
    assert write_seen(objects, None, move) != write_seen(objects, None, move)


def test_what_makes_no_sense_is_told_and_stands_in_nobodys_way(objects: Objects) -> None:
    good = Entry(FILE, objects.write_blob(f"{A}\n".encode()))
    odd = Entry(FILE, objects.write_blob(b"\xff\0"))
    heads = Entry(FOLDER, objects.write_tree({b"main": good, b"bad": odd}))
    found = read_seen(objects, objects.write_commit(objects.write_tree({b"heads": heads, b"what": good}), [], "x"))
    assert found.marks == {"heads/main": A}
    assert found.unreadable == {"heads/bad", "what"}
    assert len(found.faults) == 2


def test_folders_without_end_and_files_without_bounds_are_refused(objects: Objects) -> None:
    tree = objects.write_tree({b"x": Entry(FILE, objects.write_blob(b"1"))})
    for _ in range(300):
        tree = objects.write_tree({b"d": Entry(FOLDER, tree)})
    with pytest.raises(Invalid, match="deep"):
        read_seen(objects, objects.write_commit(tree, [], "x"))
    large = objects.write_tree({b"x": Entry(FILE, objects.write_blob(b"1" * 100_000))})
    with pytest.raises(Invalid, match="at most"):
        read_seen(objects, objects.write_commit(large, [], "x"))


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(
    lambda parts: "/".join(("heads", *parts))
)


def _clash(one: str, other: str) -> bool:
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(st.dictionaries(PATHS, st.sampled_from([A, B, None]), max_size=4), max_size=6))
def test_any_row_of_moves_leaves_what_they_add_up_to(
    tmp_path_factory: pytest.TempPathFactory, moves: list[dict[str, str | None]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "moves"
    if not path.exists():
        create(path, [])
    objects = Objects.open(path)
    base, expected = None, dict[str, str]()
    for move in moves:
        # As the remote has it: no branch is a folder of others.
        marks: dict[str, str | None] = {}
        for name, mark in move.items():
            if mark is None or not any(_clash(name, other) for other, there in marks.items() if there):
                marks[name] = mark
        gone = {old: None for old in expected for name, mark in marks.items() if mark and _clash(old, name)}
        whole = {**marks, **{old: None for old in gone if old not in marks or marks[old] is None}}
        base = write_seen(objects, base, Move(marks=whole))
        expected = {name: mark for name, mark in {**expected, **whole}.items() if mark}
        assert dict(read_seen(objects, base).marks) == expected
