import hashlib
import io
import os
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from dstack.model import keys, packing
from dstack.model import manifest as manifests
from dstack.model.errors import Invalid
from dstack.model.manifest import MEMBER_LIMIT, Entry, Kind, Manifest, Pack
from dstack.store.artifacts import Missing, Tree, download, load, place, save
from dstack.store.memory import MemoryStore
from tests.artifact_sets import put_content, put_manifest, shape

MIB = 1024 * 1024


def files(folder: Path, count: int, size: int = 4096) -> None:
    chance = random.Random(1)
    for number in range(count):
        path = folder / "set" / f"{number // 100:02}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))


def saved(store: MemoryStore, folder: Path) -> Manifest:
    manifest = save(store, Tree(root=folder), ("set",)).manifest
    assert manifest is not None
    return manifest


def packs_of(sizes: Mapping[str, int]) -> list[list[str]]:
    """The names by pack; a name serves as content."""
    packs: list[list[str]] = [[]]
    total = 0
    for name, size in sizes.items():
        total += packing.weight(size)
        packs[-1].append(name)
        if packing.ends(total, hashlib.sha256(name.encode()).hexdigest(), size):
            packs.append([])
            total = 0
    return packs


def test_packs_are_neither_small_nor_large_and_few() -> None:
    packs = packs_of({f"file {number}": 4096 for number in range(10_000)})
    assert 10 <= len(packs) <= 40
    assert all(packing.LEAST <= len(pack) * 4096 <= packing.MOST for pack in packs[:-1])
    assert max(map(len, packs_of({f"file {number}": 0 for number in range(10_000)}))) <= packing.MOST // packing.GRAIN


def test_one_changed_added_or_removed_file_leaves_nearly_all_packs_as_they_were() -> None:
    names = [f"file {number}" for number in range(5_000)]
    before = {tuple(pack) for pack in packs_of(dict.fromkeys(names, 4096))}
    counts = []
    for number in range(200, 5_000, 800):
        for instead in (["changed"], [], [names[number], "added"]):
            after = [*names[:number], *instead, *names[number + 1 :]]
            counts.append(len({tuple(pack) for pack in packs_of(dict.fromkeys(after, 4096))} - before))
    # A cut that comes or goes moves the next ones, until they fall together again. Mostly it is the one.
    assert max(counts) <= 6
    assert sorted(counts)[len(counts) // 2] == 1


def test_small_files_travel_in_packs_and_come_back(tmp_path: Path) -> None:
    files(tmp_path, 1000)
    (tmp_path / "set" / "empty").touch()
    (tmp_path / "set" / "large").write_bytes(b"large" * MIB)
    store = MemoryStore()
    manifest = saved(store, tmp_path)
    assert 2 <= len(manifest.packs) <= 5
    assert {head.key: head.size for head in store.list("objects/")} == manifest.objects()
    assert len(manifest.objects()) == len(manifest.packs) + 1
    for pack in manifest.packs:
        data = store.get(keys.content(pack.sha256), limit=16 * MIB)
        assert data is not None
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (pack.sha256, pack.size)
    assert manifests.from_bytes(manifests.to_bytes(manifest)) == manifest
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "set")


def test_the_same_files_give_the_same_set_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("one", "other"):
        files(tmp_path / name, 300)
    assert saved(MemoryStore(), tmp_path / "one") == saved(MemoryStore(), tmp_path / "other")


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(100):
        (tmp_path / "set" / str(number)).write_bytes(b"%d" % (number % 7) * 1000)
    store = MemoryStore()
    manifest = saved(store, tmp_path)
    assert [head.size for head in store.list("objects/")] == [7000]
    download(store, manifest, tmp_path / "down")
    assert shape(tmp_path / "down" / "set") == shape(tmp_path / "set")


def test_one_small_file_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(b"x")
    manifest = saved(MemoryStore(), tmp_path)
    assert (manifest.version, manifest.packs) == (1, ())
    assert manifest.objects() == {keys.content(hashlib.sha256(b"x").hexdigest()): 1}


class Counting(MemoryStore):
    """Counts what is read."""

    opened = 0
    read = 0

    def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
        stream = super().open(key, start=start, size=size)
        if key.startswith("objects/"):
            assert isinstance(stream, io.BytesIO)
            self.opened += 1
            self.read += len(stream.getvalue())
        return stream


def test_of_a_pack_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    files(tmp_path, 1000)
    store = Counting()
    manifest = saved(store, tmp_path)
    download(store, manifest, tmp_path / "one", only=("set/03/00345",))
    assert (store.opened, store.read) == (1, 4096)
    store.opened = store.read = 0
    download(store, manifest, tmp_path / "all")
    assert (store.opened, store.read) == (len(manifest.packs), manifest.size)


def test_what_stands_already_is_not_fetched_again(tmp_path: Path) -> None:
    files(tmp_path, 300)
    (tmp_path / "set" / "large").write_bytes(os.urandom(2 * MIB))
    store = Counting()
    manifest = saved(store, tmp_path)
    download(store, manifest, tmp_path / "down")
    down = tmp_path / "down" / "set"
    (down / "00" / "00007").write_bytes(b"z" * 4096)
    (down / "00" / "00008").chmod(0o600)
    (down / "00" / "00009").unlink()
    (down / "00" / "00010").rename(tmp_path / "elsewhere")
    (down / "00" / "00010").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "second name").hardlink_to(down / "00" / "00011")
    store.opened = store.read = 0
    download(store, manifest, tmp_path / "down")
    assert shape(down) == shape(tmp_path / "set")
    assert (down / "00" / "00011").stat().st_nlink == 1
    # 7, 9, 10 and 11, and what lies between them.
    assert (store.opened, store.read) == (1, 5 * 4096)


PACK = b"0123456789"


def packed(*entries: Entry, size: int = len(PACK), sha256: str | None = None) -> Manifest:
    pack = Pack(sha256=hashlib.sha256(PACK).hexdigest() if sha256 is None else sha256, size=size)
    return Manifest(version=2, artifacts=("a",), entries=entries, packs=(pack,))


def member(offset: int, size: int, **more: object) -> Entry:
    sha256 = hashlib.sha256(PACK[offset : offset + size] if offset >= 0 else b"").hexdigest()
    values: dict[str, object] = {"path": f"a/{offset}", "pack": 0, "offset": offset, "size": size, "sha256": sha256}
    return Entry(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "manifest",
    [
        packed(member(-1, 1)),
        packed(member(0, -1)),
        packed(member(0, 11)),
        packed(member(10, 1)),
        packed(member(11, 0)),
        packed(member(0, 1, pack=1)),
        packed(member(0, 1, pack=-1)),
        packed(member(0, 1, kind=Kind.FOLDER)),
        packed(member(0, 1, kind=Kind.LINK)),
        packed(member(2**63 - 1, 2**62)),
        packed(member(0, MEMBER_LIMIT + 1), size=2 * MEMBER_LIMIT),
        packed(member(0, 1), sha256="../../escape"),
        packed(member(0, 1), sha256="A" * 64),
        packed(member(0, 1), size=-1),
        Manifest(version=3, artifacts=("a",)),
    ],
)
def test_a_manifest_whose_packs_make_no_sense_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    store = MemoryStore()
    put_content(store, PACK)
    digest = put_manifest(store, manifest)
    with pytest.raises(Invalid):
        place(store, digest, Tree(root=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ['{"pack":1e400}', '{"pack":{}}', '{"pack":0,"offset":99999999999999999999999}', '{"pack":"x"}']
)
def test_a_pack_that_is_no_number_is_refused(text: str) -> None:
    entry = text.replace("{", '{"path":"a/x","size":1,"sha256":"00",', 1)
    with pytest.raises(Invalid):
        manifests.from_bytes(b'{"version":2,"artifacts":["a"],"entries":[%s],"packs":[]}' % entry.encode())


def test_members_may_overlap_and_repeat(tmp_path: Path) -> None:
    store = MemoryStore()
    put_content(store, PACK)
    entries = [member(2, 5), member(0, 10), member(4, 3), member(2, 5, path="a/again"), member(9, 1), member(10, 0)]
    place(store, put_manifest(store, packed(*entries)), Tree(root=tmp_path))
    for entry in entries:
        assert (tmp_path / entry.path).read_bytes() == PACK[entry.offset : entry.offset + entry.size]


@pytest.mark.parametrize("stored", [b"", b"012", b"01234x6789", b"x" * 20])
def test_a_damaged_pack_gives_no_damaged_file(tmp_path: Path, stored: bytes) -> None:
    store = MemoryStore()
    store.put(keys.content(put_content(store, PACK)), stored)
    digest = put_manifest(store, packed(member(2, 5), member(0, 1, path="a/z", sha256="0" * 64)))
    with pytest.raises(Missing, match="is damaged"):
        place(store, digest, Tree(root=tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_pack_that_is_gone_is_told_with_a_file_that_needs_it(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put_manifest(store, packed(member(2, 5)))
    with pytest.raises(Missing, match="no longer has the content of a/2"):
        place(store, digest, Tree(root=tmp_path))
    assert load(store, digest).packs
