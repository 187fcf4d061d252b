import hashlib
import os
from pathlib import Path

import pytest

from dstack.ledger import lfs
from dstack.model import refs
from dstack.model.errors import Failed
from tests.repositories import Place, bare, place, sh, work

DATA = os.urandom(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def here(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    sh(top, "lfs", "install", "--local", "--skip-repo")
    (top / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    sh(top, "add", "--all")
    sh(top, "commit", "--quiet", "-m", "lfs")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "a remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    return place(top, tmp_path / "cache")


def test_a_large_file_travels_through_lfs(here: Place) -> None:
    (here.code.top / "model.bin").write_bytes(DATA)
    snapshot = here.snapshot()
    assert (snapshot.lfs.digests, snapshot.warnings) == ((DIGEST,), ())
    made = here.submit()
    remote = Path(here.cache.url)
    assert f"oid sha256:{DIGEST}" in sh(remote, "show", f"{refs.snapshot(made.key)}:model.bin")
    assert (remote / f"lfs/objects/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}").read_bytes() == DATA
    assert here.snapshot().lfs.digests == ()


def test_a_file_that_may_be_large_with_lfs_is_not_refused(here: Place) -> None:
    with (here.code.top / "huge.bin").open("wb") as file:
        file.truncate(101 * 1024 * 1024)
    assert here.snapshot().travels.size < 1024


def test_a_repository_that_is_its_own_remote_needs_no_copy(here: Place, tmp_path: Path) -> None:
    sh(here.code.top, "config", "dstack.remote", ".")
    (here.code.top / "model.bin").write_bytes(DATA)
    assert place(here.code.top, tmp_path / "own").snapshot().lfs.digests == ()


def test_a_large_file_that_is_not_here_is_explained(here: Place) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
    (here.code.top / "gone.bin").write_text(text)
    with pytest.raises(Failed, match="git lfs pull"):
        here.submit()
    assert here.ledger.observe().refs == {}


def test_what_looks_like_a_pointer_by_half_is_none(here: Place) -> None:
    objects = here.cache.objects
    blob = objects.write_blob(b"version https://git-lfs.github.com/spec/v1\noid sha256:123\n")
    tree = objects.write_tree({b"x": objects.tree(objects.commit(here.code.head).tree)[b"train.py"]._replace(oid=blob)})
    assert list(lfs.pointers(objects, tree)) == []
