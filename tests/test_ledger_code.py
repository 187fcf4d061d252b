import os
import re
import shutil
from pathlib import Path

import pytest

from dstack.ledger.code import find_code
from dstack.ledger.remote import find_remote
from dstack.model.bucket import Reach
from dstack.model.errors import Failed, Invalid
from tests.repositories import bare, sh, work


def test_the_repository_is_found_from_any_folder_of_it(tmp_path: Path) -> None:
    top = work(tmp_path / 'my code: "x" ü')
    (top / "a/b").mkdir(parents=True)
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "r.git")))
    code = find_code(top / "a/b")
    assert (code.top, code.common, code.branch, code.shallow) == (top, top / ".git", "main", False)
    assert (code.head, code.url) == (sh(top, "rev-parse", "HEAD"), str(tmp_path / "r.git"))


def test_a_detached_head_has_no_branch(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "checkout", "--quiet", "--detach")
    assert find_code(top).branch is None


def test_no_repository_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not in a git repository"):
        find_code(tmp_path)


def test_the_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid, match=re.escape(f"{tmp_path} is not in a git repository")):
        find_code(Path())


def test_a_folder_that_was_deleted_under_the_shell_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(Failed, match="started in has been deleted"):
        find_code(Path())


def test_a_repository_of_another_user_is_named_by_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = work(tmp_path / "their code")
    (top / "deep").mkdir()
    real = shutil.which("git")
    wrapped = tmp_path / "bin/git"
    wrapped.parent.mkdir()
    wrapped.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')  # git's own switch
    wrapped.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapped.parent), prepend=os.pathsep)
    monkeypatch.chdir(top / "deep")
    with pytest.raises(Failed, match=re.escape(f"--add safe.directory '{top}'")):
        find_code(Path())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no folder"):
        find_code(tmp_path / "gone")


def test_a_repository_without_a_commit_is_explained(tmp_path: Path) -> None:
    sh(tmp_path, "init", "--quiet")
    with pytest.raises(Invalid, match="no commit yet"):
        find_code(tmp_path)


def test_a_bare_repository_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="bare repository"):
        find_code(bare(tmp_path / "r.git"))


def test_another_hash_is_explained(tmp_path: Path) -> None:
    sh(tmp_path, "init", "--quiet", "--object-format=sha256")
    sh(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "x")
    with pytest.raises(Invalid, match="sha256"):
        find_code(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_branch_called_dstack_is_explained(tmp_path: Path, *, packed: bool) -> None:
    top = work(tmp_path / "code")
    sh(top, "branch", "dstack")
    if packed:
        sh(top, "pack-refs", "--all")
    with pytest.raises(Invalid, match="branch called `dstack`"):
        find_code(top)


def test_a_line_break_in_the_path_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="line break"):
        find_code(work(tmp_path / "co\nde"))


def test_the_state_remote_follows_the_settings(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    assert find_code(top).remote().path == top / ".git"
    origin, state = bare(tmp_path / "origin.git"), bare(tmp_path / "state.git")
    sh(top, "remote", "add", "origin", str(origin))
    assert find_code(top).remote().path == origin
    sh(top, "remote", "add", "state", "../state.git")
    for setting, path in (("state", state), (str(state), state), (f"file://{state}", state), (".", top / ".git")):
        sh(top, "config", "dstack.remote", setting)
        assert find_code(top).remote().path == path
    sh(top, "config", f"url.{state}.insteadOf", "short:")
    sh(top, "config", "dstack.remote", "short:")
    assert find_code(top).remote().path == state


def test_a_work_tree_is_a_remote_by_its_git_folder(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "worktree", "add", "--quiet", str(tmp_path / "side"))
    assert find_remote("../side", top).path == find_remote(str(top), top).path == top / ".git"


@pytest.mark.parametrize(
    ("url", "shown", "reach"),
    [
        ("https://ada:secret@example.org/x.git", "https://example.org/x.git", Reach.NETWORK),
        ("https://ada:secret@github.com/x/y.git", "https://github.com/x/y.git", Reach.FORGE),
        ("ssh://git:secret@ssh.github.com:443/x", "ssh://git@ssh.github.com:443/x", Reach.FORGE),
        ("git@gitlab.com:x/y.git", "git@gitlab.com:x/y.git", Reach.FORGE),
        ("git@example.org:x/y.git", "git@example.org:x/y.git", Reach.NETWORK),
        ("alias:x/y.git", "alias:x/y.git", Reach.NETWORK),
        ("git://example.org/x", "git://example.org/x", Reach.NETWORK),
    ],
)
def test_a_remote_elsewhere_has_an_address_without_credentials(
    tmp_path: Path, url: str, shown: str, reach: Reach
) -> None:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", url)
    by_name = find_code(top).remote()
    assert (by_name.name, by_name.url, by_name.path, by_name.reach) == ("origin", shown, None, reach)
    sh(top, "config", "dstack.remote", url)
    by_url = find_code(top).remote()
    assert (by_url.name, by_url.url) == (shown, shown)
    assert "secret" not in repr(by_name) + repr(by_url)


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "-oProxyCommand=x:y", "ssh://-x/y", "https:///x", "ext::sh -c id", "x\ny:z"]
)
def test_an_address_that_git_must_not_be_given_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Invalid):
        find_remote(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:secret@example.org/x.git", "https://example.org/x.git"),
        ("https://secret@example.org:8443/x@y", "https://example.org:8443/x@y"),
        ("ssh://git:secret@example.org/x", "ssh://git@example.org/x"),
        ("https://example.org/x@y", "https://example.org/x@y"),
        ("git@example.org:x/y.git", "git@example.org:x/y.git"),
        ("/srv/x@y", "/srv/x@y"),
    ],
)
def test_a_password_in_an_address_stays_at_home(tmp_path: Path, url: str, shown: str) -> None:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", url)
    assert find_code(top).url == shown


def test_a_misspelt_state_remote_is_explained(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "config", "dstack.remote", "sate")
    with pytest.raises(Invalid, match="neither a remote nor a folder"):
        find_code(top).remote()


def test_settings_that_were_given_twice_count_as_git_counts(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "config", "--add", "user.name", "Eve")
    assert find_code(top).settings["user.name"] == "Eve"
