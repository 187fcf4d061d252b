import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.ledger.worktree import Choice
from dstack.model.errors import Invalid
from tests.repositories import bare, place, sh, work


def dirty(top: Path) -> None:
    (top / "train.py").write_text("print('changed')\n")


def staged(top: Path) -> None:
    (top / "new.py").write_text("1\n")
    sh(top, "add", "new.py")


def staged_and_changed_again(top: Path) -> None:
    staged(top)
    (top / "new.py").write_text("2\n")


def intended(top: Path) -> None:
    (top / "new.py").write_text("1\n")
    sh(top, "add", "--intent-to-add", "new.py")


def deleted(top: Path) -> None:
    (top / "train.py").unlink()


def renamed(top: Path) -> None:
    sh(top, "mv", "train.py", "learn.py")


def binary(top: Path) -> None:
    (top / "model.bin").write_bytes(bytes(range(256)) * 10)


def executable(top: Path) -> None:
    (top / "train.py").chmod(0o755)
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)


def symlinked(top: Path) -> None:
    (top / "link").symlink_to("train.py")
    (top / "broken").symlink_to("/nowhere/at all")


def ignored(top: Path) -> None:
    (top / ".gitignore").write_text("*.log\n/out/\n")
    (top / "x.log").write_text("no")
    (top / "out").mkdir()
    (top / "out/big").write_text("no")


def nested(top: Path) -> None:
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/d.txt").write_text("deep")
    (top / "a/empty").mkdir()


def odd_names(top: Path) -> None:
    names = (
        b"with space",
        b"-rf",
        b"--",
        b"new\nline",
        b"tab\t",
        b"quote\"'",
        b"\xff\xfe",
        "grün".encode(),
        b":(top)x",
        b"*",
        b"\\",
    )
    for name in names:
        (top / os.fsdecode(name)).write_bytes(name)


def file_becomes_folder(top: Path) -> None:
    (top / "train.py").unlink()
    (top / "train.py").mkdir()
    (top / "train.py/inside").write_text("x")


def folder_becomes_file(top: Path) -> None:
    (top / "pkg").mkdir()
    (top / "pkg/one.py").write_text("1")
    sh(top, "add", "--all")
    sh(top, "commit", "--quiet", "-m", "pkg")
    shutil.rmtree(top / "pkg")
    (top / "pkg").write_text("now a file")


def detached(top: Path) -> None:
    sh(top, "checkout", "--quiet", "--detach")
    dirty(top)


def merging(top: Path) -> None:
    sh(top, "checkout", "--quiet", "-b", "other")
    (top / "train.py").write_text("other\n")
    sh(top, "commit", "--quiet", "-am", "other")
    sh(top, "checkout", "--quiet", "main")
    (top / "train.py").write_text("main\n")
    sh(top, "commit", "--quiet", "-am", "main")
    with pytest.raises(AssertionError, match="merge"):
        sh(top, "merge", "other")


def eol(top: Path) -> None:
    (top / ".gitattributes").write_text("*.txt text eol=lf\n")
    (top / "dos.txt").write_bytes(b"one\r\ntwo\r\n")


def filtered(top: Path) -> None:
    sh(top, "config", "filter.upper.clean", "tr a-z A-Z")
    (top / ".gitattributes").write_text("*.up filter=upper\n")
    (top / "x.up").write_text("shout")


SCENES = (
    dirty,
    staged,
    staged_and_changed_again,
    intended,
    deleted,
    renamed,
    binary,
    executable,
    symlinked,
    ignored,
    nested,
    odd_names,
    file_becomes_folder,
    folder_becomes_file,
    detached,
    merging,
    eol,
    filtered,
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_the_snapshot_is_what_git_would_commit(tmp_path: Path, scene: Callable[[Path], None]) -> None:
    top = work(tmp_path / "code")
    scene(top)
    here = place(top, tmp_path / "cache")
    before = _state(top)
    snapshot = here.snapshot()
    assert _state(top) == before
    copy = tmp_path / "copy"
    shutil.copytree(top, copy, symlinks=True)
    sh(copy, "add", "--all")
    assert snapshot.tree == sh(copy, "write-tree")
    assert (
        sh(tmp_path / "cache", "rev-parse", f"{snapshot.commit}^{{tree}}", f"{snapshot.commit}^")
        == f"{snapshot.tree}\n{snapshot.head}"
    )


def test_an_unchanged_work_tree_is_its_commit(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    snapshot = place(top, tmp_path / "cache").snapshot()
    assert snapshot.commit == snapshot.head == sh(top, "rev-parse", "HEAD")
    assert str(snapshot.travels) == "the commit that is checked out, as it is"


def test_only_what_is_committed_can_be_chosen(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    dirty(top)
    snapshot = place(top, tmp_path / "cache").snapshot(Choice(only_committed=True))
    assert snapshot.commit == snapshot.head


def test_untracked_files_can_be_left_at_home(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    dirty(top)
    binary(top)
    here = place(top, tmp_path / "cache")
    assert _names(tmp_path, here.snapshot(Choice(untracked=False)).tree) == {".dstack/workflows.yaml", "train.py"}


def test_a_dstackignore_leaves_files_out_and_include_brings_them_back(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    (top / ".dstackignore").write_text("# a comment\n\n*.csv\n/data/\n!keep.csv\n")
    (top / "data").mkdir()
    for name in ("a.csv", "keep.csv", "data/b", "c.txt"):
        (top / name).write_text(name)
    here = place(top, tmp_path / "cache")
    always = {".dstack/workflows.yaml", ".dstackignore", "train.py", "keep.csv", "c.txt"}
    assert _names(tmp_path, here.snapshot().tree) == always
    assert _names(tmp_path, here.snapshot(Choice(include=("data/*", "a.csv"))).tree) == always | {"data/b", "a.csv"}
    with pytest.raises(Invalid, match="no such file"):
        here.snapshot(Choice(include=("nothing-like-it",)))


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"


@pytest.mark.parametrize(
    ("name", "text", "left_out"),
    [
        (".env", "TOKEN=1", True),
        (".env.local", "TOKEN=1", True),
        ("sub/.env", "TOKEN=1", True),
        (".env.example", "TOKEN=", False),
        ("id_ed25519", "x", True),
        ("deploy", KEY, True),
        ("server.pem", "-----BEGIN CERTIFICATE-----\n", False),
        (".aws/credentials", "[default]", True),
        ("credentials", "a list of papers", False),
        ("environment.py", "x", False),
    ],
)
def test_credentials_stay_at_home(tmp_path: Path, name: str, text: str, *, left_out: bool) -> None:
    top = work(tmp_path / "code")
    (top / name).parent.mkdir(exist_ok=True)
    (top / name).write_text(text)
    here = place(top, tmp_path / "cache")
    snapshot = here.snapshot()
    assert (name not in _names(tmp_path, snapshot.tree)) == left_out
    assert any(name in warning for warning in snapshot.warnings) == left_out
    assert name in _names(tmp_path, here.snapshot(Choice(include=(name,))).tree)


def test_a_large_file_is_named(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    (top / "model.bin").write_bytes(os.urandom(2 * 1024 * 1024))
    assert "model.bin has 2.0 MiB" in place(top, tmp_path / "cache").snapshot().warnings[0]


def test_too_much_untracked_content_is_refused_before_it_is_read(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    for name, size in (("small", 1), ("huge.bin", 60), ("large.bin", 40)):
        with (top / name).open("wb") as file:
            file.truncate(size * 1024 * 1024)
    here = place(top, tmp_path / "cache")
    with pytest.raises(Invalid, match=r"101\.0 MiB.*huge\.bin \(60\.0 MiB\), large\.bin \(40\.0 MiB\)"):
        here.snapshot()
    with (top / "huge.bin").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    with pytest.raises(Invalid, match=r"more than 100\.0 MiB.*huge\.bin"):
        here.snapshot()
    assert not list((tmp_path / "cache/objects/pack").glob("*.pack"))


def test_too_many_untracked_files_are_refused(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    (top / "many").mkdir()
    for number in range(1001):
        (top / f"many/{number}").touch()
    with pytest.raises(Invalid, match=r"1001 untracked files.*\.dstackignore"):
        place(top, tmp_path / "cache").snapshot()


def test_a_large_tracked_file_is_refused(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    with (top / "train.py").open("wb") as file:
        file.truncate(101 * 1024 * 1024)
    with pytest.raises(Invalid, match=r"train\.py has 101\.0 MiB"):
        place(top, tmp_path / "cache").snapshot()


@pytest.mark.parametrize("commits", [False, True])
def test_a_repository_inside_is_refused_by_name(tmp_path: Path, *, commits: bool) -> None:
    top = work(tmp_path / "code")
    inner = work(top / "vendor/lib")
    if not commits:
        sh(inner, "update-ref", "-d", "HEAD")
    here = place(top, tmp_path / "cache")
    with pytest.raises(Invalid, match="vendor/lib/ is a git repository of its own"):
        here.snapshot()
    (top / ".dstackignore").write_text("vendor\n")
    assert "vendor/lib" not in _names(tmp_path, here.snapshot().tree)


@pytest.mark.parametrize("remedy", ["missing", "ignored", "link"])
def test_a_workflows_file_that_does_not_travel_is_explained(tmp_path: Path, remedy: str) -> None:
    top = work(tmp_path / "code")
    sh(top, "rm", "-r", "--quiet", "--cached", ".dstack")
    path = top / ".dstack/workflows.yaml"
    if remedy == "missing":
        path.unlink()
    elif remedy == "ignored":
        (top / ".gitignore").write_text(".dstack\n")
    else:
        path.rename(top / "elsewhere.yaml")
        path.symlink_to("../elsewhere.yaml")
    words = {"missing": "dstack init", "ignored": "would not travel", "link": "not a plain file"}
    with pytest.raises(Invalid, match=words[remedy]):
        place(top, tmp_path / "cache").snapshot()


def test_a_file_that_git_cannot_record_is_named(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "config", "filter.bad.clean", "false")
    sh(top, "config", "filter.bad.required", "true")
    (top / ".gitattributes").write_text("*.bad filter=bad\n")
    (top / "x.bad").write_text("x")
    with pytest.raises(Invalid, match=r"x\.bad: clean filter"):
        place(top, tmp_path / "cache").snapshot()


def test_history_that_the_remote_lacks_stays_at_home(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    here = place(top, tmp_path / "cache")
    snapshot = here.snapshot()
    told = sh(tmp_path / "cache", "cat-file", "-p", snapshot.commit)
    assert ("parent" not in told, f"Head: {snapshot.head}" in told, snapshot.travels.whole) == (True, True, True)
    sh(top, "push", "--quiet", "origin", "main")
    assert here.snapshot().commit == snapshot.head
    sh(top, "commit", "--quiet", "--allow-empty", "-m", "ahead")
    dirty(top)
    ahead = here.snapshot()
    assert sh(tmp_path / "cache", "rev-parse", f"{ahead.commit}^") == sh(top, "rev-parse", "HEAD")


@pytest.mark.parametrize("moved_on", [False, True])
def test_a_shallow_clone_can_submit(tmp_path: Path, *, moved_on: bool) -> None:
    origin = work(tmp_path / "origin")
    for number in range(3):
        sh(origin, "commit", "--quiet", "--allow-empty", "-m", str(number))
    sh(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", "code")
    if moved_on:
        sh(origin, "commit", "--quiet", "--allow-empty", "-m", "more")
    dirty(tmp_path / "code")
    here = place(tmp_path / "code", tmp_path / "cache")
    made = here.submit()
    assert sh(origin, "show", f"refs/dstack/snapshots/{made.key}:train.py") == "print('changed')"
    sh(origin, "fsck", "--connectivity-only")


def test_a_shallow_clone_of_something_else_can_submit(tmp_path: Path) -> None:
    origin = work(tmp_path / "origin")
    sh(origin, "commit", "--quiet", "--allow-empty", "-m", "two")
    sh(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", "code")
    state = bare(tmp_path / "state.git")
    sh(tmp_path / "code", "config", "dstack.remote", str(state))
    here = place(tmp_path / "code", tmp_path / "cache")
    made = here.submit()
    assert sh(state, "rev-list", "--count", f"refs/dstack/snapshots/{made.key}") == "1"
    sh(state, "fsck", "--connectivity-only")


def test_a_linked_work_tree_and_a_subfolder_work(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    dirty(tmp_path / "side")
    (tmp_path / "side/sub").mkdir()
    here = place(tmp_path / "side/sub", tmp_path / "cache")
    snapshot = here.snapshot()
    assert (snapshot.branch, snapshot.commit == snapshot.head) == ("side", False)
    made = here.submit()
    assert sh(top, "show", f"refs/dstack/snapshots/{made.key}:train.py") == "print('changed')"


@pytest.mark.parametrize("index", ["--no-sparse-index", "--sparse-index"])
def test_a_sparse_checkout_keeps_what_is_not_checked_out(tmp_path: Path, index: str) -> None:
    top = work(tmp_path / "code")
    for name in ("in/a", "out/b", "out/deep/c"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    sh(top, "add", "--all")
    sh(top, "commit", "--quiet", "-m", "more")
    sh(top, "sparse-checkout", "set", "--cone", index, "in", ".dstack")
    assert not (top / "out").exists()
    (top / "in/a").write_text("changed")
    snapshot = place(top, tmp_path / "cache").snapshot()
    assert {"in/a", "out/b", "out/deep/c", "train.py"} < _names(tmp_path, snapshot.tree)


def test_submodules_are_explained(tmp_path: Path) -> None:
    library = work(tmp_path / "library")
    top = work(tmp_path / "code")
    sh(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "library")
    sh(top, "commit", "--quiet", "-m", "submodule")
    snapshot = place(top, tmp_path / "cache").snapshot()
    assert snapshot.commit == snapshot.head
    assert "submodules don't travel" in snapshot.warnings[0]


def test_a_merge_in_progress_is_said(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    merging(top)
    assert "merge" in place(top, tmp_path / "cache").snapshot().warnings[0]


def _names(tmp_path: Path, tree: str) -> set[str]:
    return set(sh(tmp_path / "cache", "ls-tree", "-r", "--name-only", tree).splitlines())


def _state(top: Path) -> dict[str, bytes]:
    """Every file of the repository: nothing of it may change."""
    return {str(path): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink()}
