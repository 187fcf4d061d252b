import os
import time
from pathlib import Path

import pytest

from dstack.ledger import git
from dstack.ledger.git import Context
from dstack.model.errors import Failed, Unavailable
from tests.repositories import sh, work

POISON = {
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "GIT_INDEX_FILE": "/nowhere",
    "GIT_OBJECT_DIRECTORY": "/nowhere",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nowhere",
    "GIT_NAMESPACE": "other",
    "GIT_COMMON_DIR": "/nowhere",
    "GIT_PREFIX": "x/",
    "GIT_CONFIG_PARAMETERS": "'core.bare'='true'",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.bare",
    "GIT_CONFIG_VALUE_0": "true",
    "GIT_LITERAL_PATHSPECS": "1",
}


def test_a_poisoned_environment_does_not_reach_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = work(tmp_path / "code")
    head = sh(top, "rev-parse", "HEAD")
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    assert git.output(Context(folder=top), "rev-parse", "HEAD").decode().strip() == head


@pytest.mark.parametrize("name", sorted(POISON))
def test_what_misdirects_is_dropped(name: str) -> None:
    assert name not in git.environment({name: "x"}, {}, prompt=False)


@pytest.mark.parametrize("name", ["GIT_SSH_COMMAND", "GIT_ASKPASS", "SSH_AUTH_SOCK", "HOME", "GIT_SSL_CAINFO", "PATH"])
def test_what_reaches_a_remote_is_kept(name: str) -> None:
    assert git.environment({name: "x"}, {}, prompt=False)[name] == "x"


def test_only_the_command_line_may_prompt() -> None:
    assert git.environment({}, {}, prompt=False)["GIT_TERMINAL_PROMPT"] == "0"
    assert "GIT_TERMINAL_PROMPT" not in git.environment({}, {}, prompt=True)


def test_the_time_limit_ends_the_whole_process_group(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "config", "alias.slow", f"!sleep 60 & echo $! > {tmp_path}/pid; wait")
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"longer than 0\.5 seconds"):
        git.run(Context(folder=top, timeout=0.5), "slow")
    assert time.monotonic() - begun < 10
    assert not _alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("prompt", [True, False])
def test_leaving_the_block_ends_git(tmp_path: Path, *, prompt: bool) -> None:
    top = work(tmp_path / "code")
    sh(top, "config", "alias.slow", f"!echo $$ > {tmp_path}/pid; exec sleep 60")
    with git.start(Context(folder=top, prompt=prompt), "slow"):
        deadline = time.monotonic() + 10
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert prompt or not _alive(int((tmp_path / "pid").read_text()))


def test_a_failure_tells_gits_own_words(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="git rev-parse failed: not a git repository"):
        git.output(Context(folder=tmp_path), "rev-parse", "HEAD")


def test_a_missing_git_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="needs the git command"):
        git.check_version(Context(folder=tmp_path))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"no folder .*gone"):
        git.run(Context(folder=tmp_path / "gone"), "version")


@pytest.mark.parametrize(("version", "good"), [("2.33.9", False), ("1.9.1", False), ("2.34.1", True), ("3.0.0", True)])
def test_an_old_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, good: bool) -> None:
    script = tmp_path / "git"
    script.write_text(f"#!/bin/sh\necho git version {version}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if good:
        git.check_version(Context(folder=tmp_path))
    else:
        with pytest.raises(Failed, match=r"2\.34 or newer"):
            git.check_version(Context(folder=tmp_path))


def test_hooks_of_the_user_do_not_run(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    script = top / ".git/hooks/post-index-change"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    (top / "train.py").write_text("changed")
    git.output(Context(folder=top), "add", "--all")
    assert not (tmp_path / "ran").exists()


def _alive(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
