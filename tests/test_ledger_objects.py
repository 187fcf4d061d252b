from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.ledger import objects as ledger_objects
from dstack.ledger.objects import Damaged, Entry, Objects, format_tree, parse_tree, tree_id
from dstack.ledger.pack import write_pack
from dstack.model.codec import blob_id
from dstack.model.errors import Invalid
from tests.repositories import sh

OIDS = st.binary(min_size=20, max_size=20).map(bytes.hex)
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)
ENTRIES = st.builds(Entry, st.sampled_from([b"100644", b"100755", b"40000", b"120000", b"160000"]), OIDS)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    ledger_objects.create(tmp_path / "r.git", ())
    return Objects.open(tmp_path / "r.git")


@given(st.dictionaries(NAMES, ENTRIES, max_size=20))
def test_trees_round_trip(entries: dict[bytes, Entry]) -> None:
    assert parse_tree(format_tree(entries)) == entries


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    try:
        entries = parse_tree(data)
    except Invalid:
        return
    assert all(len(entry.oid) == 40 for entry in entries.values())


def test_trees_are_ordered_as_git_orders_them(objects: Objects, tmp_path: Path) -> None:
    blob = objects.write_blob(b"x")
    inner = objects.write_tree({b"f": Entry(b"100644", blob)})
    entries = {b"a.b": Entry(b"100644", blob), b"a": Entry(b"40000", inner), b"a0": Entry(b"100644", blob)}
    tree = objects.write_tree(entries)
    assert tree == tree_id(entries)
    sh(tmp_path / "r.git", "fsck", "--strict")
    text = sh(tmp_path / "r.git", "ls-tree", tree)
    assert sh(tmp_path / "r.git", "mktree", stdin=(text + "\n").encode()) == tree


def test_no_two_commits_are_alike(objects: Objects) -> None:
    tree = objects.write_tree({})
    one, two = (objects.write_commit(tree, [], "the same") for _ in range(2))
    assert one != two
    commit = objects.commit(one)
    assert (commit.tree, commit.parents) == (tree, ())
    assert commit.message.startswith("the same\n\nNonce: ")


def test_what_is_read_is_bounded_and_of_its_kind(objects: Objects) -> None:
    blob = objects.write_blob(b"x" * 100)
    assert objects.blob(blob, "note", limit=100) == b"x" * 100
    with pytest.raises(Invalid, match=r"note .* has 100 bytes; at most 99"):
        objects.blob(blob, "note", limit=99)
    with pytest.raises(Invalid, match="no commit"):
        objects.commit(blob)
    for missing in ("0" * 40, "nonsense", "12"):
        with pytest.raises(Damaged):
            objects.commit(missing)


@settings(max_examples=20)
@given(blobs=st.sets(st.binary(max_size=5_000), min_size=1, max_size=30))
def test_packs_hold_their_blobs(tmp_path_factory: pytest.TempPathFactory, blobs: set[bytes]) -> None:
    path = tmp_path_factory.mktemp("pack") / "r.git"
    ledger_objects.create(path, ())
    write_pack(path, blobs)
    found = Objects.open(path)
    assert {found.blob(blob_id(blob), "blob", limit=5_000) for blob in blobs} == blobs


def test_many_blobs_are_as_good_as_single_ones(objects: Objects) -> None:
    blobs = [b"%d" % (n % 250) for n in range(300)]
    ids = objects.write_blobs(blobs)
    assert list(ids) == [blob_id(blob) for blob in blobs]
    assert objects.blob(ids[299], "blob", limit=10) == b"49"
