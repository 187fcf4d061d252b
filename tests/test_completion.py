"""Completion: what is offered where, from what dstack has seen last; and the scripts that shells take."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from cli import completion
from cli.main import dstack
from tests.calls import Desk, desk
from tests.installed import search_path
from tests.repositories import sh


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


class Offered:
    """Asks as the script for bash does."""

    def __init__(self, at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self._at, self._patch = at, monkeypatch

    def __call__(self, line: str) -> list[str]:
        words = ["dstack", "-C", str(self._at.folder), *line.split(" ")]
        self._patch.setenv("COMP_WORDS", shlex.join(words) if words[-1] else shlex.join(words[:-1]) + " ")
        self._patch.setenv("COMP_CWORD", str(len(words) - 1))
        self._at.capture.readouterr()
        completion.answer(dstack, "bash_complete")
        out, err = self._at.capture.readouterr()
        assert err == ""
        return [row.partition(",")[2] for row in out.splitlines() if row]


@pytest.fixture
def offered(at: Desk, monkeypatch: pytest.MonkeyPatch) -> Offered:
    return Offered(at, monkeypatch)


def no_process(*_args: object, **_more: object) -> None:
    message = "completion starts no process"
    raise AssertionError(message)


def test_commands_and_options_are_offered(offered: Offered) -> None:
    assert offered("sta") == ["status"]
    assert "ps" not in offered("")
    assert {"run", "logs", "completion"} <= set(offered(""))
    assert "--timestamps" in offered("logs --t")
    assert offered("completion z") == ["zsh"]


def test_workflows_and_their_variables_are_offered(offered: Offered) -> None:
    assert set(offered("run ")) == {"hello", "prepare", "train", "sad"}
    assert offered("run tr") == ["train"]
    assert {"--rows", "--lr"} <= set(offered("run train --"))


def test_runs_jobs_and_tags_are_those_last_seen(at: Desk, offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered("logs ") == []
    for name in ("first", "second"):
        assert at.dstack("run", "train", "-d", "--name", name, "-y").code == 0
    root = at.refs()["refs/heads/dstack/runs/first"]
    sh(at.remote, "update-ref", "refs/tags/dstack/best", root)
    jobs = [job["job"] for job in at.dstack("status", "first", "--json").json[0]["jobs"]]
    monkeypatch.setattr(subprocess, "Popen", no_process)
    assert set(offered("logs ")) == {"first", "second"}
    assert offered("status fi") == ["first"]
    assert offered(f"logs {jobs[0][:11]}") == [jobs[0]]
    assert offered(f"status {jobs[0][:11]}") == []
    assert offered("metrics first se") == ["second"]
    assert offered("diff ") == offered("diff first ")


def test_a_broken_cache_or_folder_offers_nothing_and_says_nothing(at: Desk, offered: Offered) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "first", "-y").code == 0
    at.dstack("status")
    (kept,) = at.folder.glob(".git/dstack/*/summaries.json")
    kept.write_bytes(b'{"lines": [')
    assert offered("logs ") == []
    at.write(".dstack/workflows.yaml", "}{")
    assert offered("run ") == []
    assert offered("nothing ") == []


def test_in_another_work_tree_the_same_is_offered(
    at: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "first", "-y").code == 0
    at.dstack("status")
    sh(at.folder, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    (tmp_path / "tree/deep").mkdir()
    there = Desk(folder=tmp_path / "tree/deep", remote=at.remote, capture=capfd)
    assert Offered(there, monkeypatch)("logs ") == ["first"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(at: Desk, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = at.dstack("completion", shell).out
    assert f"_DSTACK_COMPLETE={shell}_complete" in script
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert at.dstack("completion").out == script
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "name one of bash, zsh, fish" in at.dstack("completion").err


def test_a_real_bash_completes(at: Desk, tmp_path: Path) -> None:
    script = """
        eval "$(dstack completion bash)"
        COMP_WORDS=(dstack run tra); COMP_CWORD=2
        _dstack_completion dstack && echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": search_path(tmp_path / "bin")}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=at.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("train\n", 0), done.stderr
