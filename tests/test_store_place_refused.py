import hashlib
import stat
from pathlib import Path

import pytest

from dstack.model import keys
from dstack.model.errors import Invalid
from dstack.model.manifest import Entry, Kind, Manifest
from dstack.store.artifacts import Missing, Tree, load, place, save
from dstack.store.folder import FolderStore
from tests.artifact_sets import put_content, put_manifest

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore(tmp_path / "store")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


@pytest.fixture
def next_job(tmp_path: Path) -> Path:
    (tmp_path / "next").mkdir()
    return tmp_path / "next"


BAD_PATHS = ["../x", "a/../../x", "a/../b", "..", ".", "", "/", "//x", "a//b", "a/./b", "/etc/x", "a\0b", "other/x"]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_path_that_leaves_is_refused_before_anything_is_written(
    store: FolderStore, next_job: Path, path: str, kind: Kind
) -> None:
    digest = put_content(store, b"x")
    good = Entry(path="a/good", sha256=digest, size=1)
    for raw in (None, path.encode()):
        bad = Entry(path="a/harmless" if raw else path, raw=raw, kind=kind, sha256=digest, size=1, target="t")
        for artifacts in (("a",), ("a", "..", "/etc"), ("a", path or "x")):
            manifest = put_manifest(store, Manifest(artifacts=artifacts, entries=(good, bad)))
            if path == "other/x" and "other/x" in artifacts:
                continue
            with pytest.raises(Invalid):
                place(store, manifest, Tree(root=next_job))
            assert list(next_job.iterdir()) == []


@pytest.mark.parametrize("kind", list(Kind))
def test_a_link_in_the_target_leads_nobody_out(store: FolderStore, next_job: Path, tmp_path: Path, kind: Kind) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (next_job / "a").symlink_to(outside)
    digest = put_content(store, b"x")
    entry = Entry(path="a/x", kind=kind, sha256=digest, size=1, target="t", mode=0o777)
    with pytest.raises(Invalid, match="stands in its way"):
        place(store, put_manifest(store, Manifest(artifacts=("a",), entries=(entry,))), Tree(root=next_job))
    assert list(outside.iterdir()) == []


def test_a_link_of_the_set_itself_leads_nobody_out(store: FolderStore, next_job: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    digest = put_content(store, b"x")
    entries = (
        Entry(path="a/l", kind=Kind.LINK, target=str(outside)),
        Entry(path="a/l/x", sha256=digest, size=1),
        Entry(path="a/m", kind=Kind.LINK, target=str(outside)),
        Entry(path="a/m", kind=Kind.FOLDER, mode=0o777),
    )
    for _ in range(2):
        with pytest.raises(Invalid, match="stands in its way"):
            place(store, put_manifest(store, Manifest(artifacts=("a",), entries=entries)), Tree(root=next_job))
    assert list(outside.iterdir()) == []
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_folder_in_the_way_of_a_file_is_told(store: FolderStore, next_job: Path) -> None:
    (next_job / "a" / "kept").mkdir(parents=True)
    digest = put_content(store, b"x")
    manifest = put_manifest(store, Manifest(artifacts=("a",), entries=(Entry(path="a", sha256=digest, size=1),)))
    with pytest.raises(Invalid, match="stands in its way"):
        place(store, manifest, Tree(root=next_job))
    assert [path.name for path in next_job.rglob("*")] == ["a", "kept"]


def test_no_file_gains_rights_beyond_permissions(store: FolderStore, next_job: Path) -> None:
    digest = put_content(store, b"x")
    entry = Entry(path="a", sha256=digest, size=1, mode=0o106755)
    place(store, put_manifest(store, Manifest(artifacts=("a",), entries=(entry,))), Tree(root=next_job))
    assert stat.S_IMODE((next_job / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("size", "stored"), [(1, b"y"), (1, b"xx"), (2, b"x"), (-5, b"x"), (0, b"x"), (1, b""), (2**62, b"x")]
)
def test_content_that_is_not_what_was_saved_is_never_put_in_place(
    store: FolderStore, next_job: Path, size: int, stored: bytes
) -> None:
    digest = put_content(store, b"x")
    store.put(keys.content(digest), stored)
    manifest = put_manifest(store, Manifest(artifacts=("a",), entries=(Entry(path="a", sha256=digest, size=size),)))
    with pytest.raises(Missing, match="damaged"):
        place(store, manifest, Tree(root=next_job))
    assert list(next_job.iterdir()) == []


def test_what_is_gone_is_named(store: FolderStore, job: Path, next_job: Path) -> None:
    (job / "f").write_text("x")
    saved = save(store, Tree(root=job), ("f",))
    assert saved.digest is not None
    store.delete(keys.content(hashlib.sha256(b"x").hexdigest()))
    with pytest.raises(Missing, match="the content of f"):
        place(store, saved.digest, Tree(root=next_job))
    store.delete(keys.manifest(saved.digest))
    with pytest.raises(Missing, match="no longer has the artifact set"):
        place(store, saved.digest, Tree(root=next_job))


@pytest.mark.parametrize("digest", ["", "../../x", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_an_odd_digest_is_refused(store: FolderStore, digest: str) -> None:
    with pytest.raises(Invalid, match="is not the digest"):
        load(store, digest)


def test_a_damaged_manifest_is_refused(store: FolderStore) -> None:
    digest = put_manifest(store, Manifest(artifacts=("a",)))
    store.put(keys.manifest(digest), b"{}")
    with pytest.raises(Missing, match="is damaged"):
        load(store, digest)
