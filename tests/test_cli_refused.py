"""Bad input: refused with exit code 1 and a message that helps; nothing is pushed."""

import shutil
from pathlib import Path

import pytest

from tests.calls import WORKFLOWS, Desk, desk
from tests.repositories import hook, sh


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def refused(at: Desk, *args: str) -> str:
    """The message; and nothing has changed in the remote."""
    before = at.refs()
    answer = at.dstack(*args)
    assert answer.code == 1, answer
    assert answer.out == ""
    assert at.refs() == before
    assert "Traceback" not in answer.err
    return answer.err


def test_outside_of_a_repository(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    nowhere = Desk(folder=empty, remote=empty, capture=capfd)
    for args in (["run", "hello"], ["status"], ["init"], ["logs", "x"], ["stop", "x"], ["runners"], ["up"]):
        answer = nowhere.dstack(*args)
        assert answer.code == 1
        assert answer.err.startswith(f"dstack: {empty} is not in a git repository: run `git init`")


def test_a_repository_without_a_commit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sh(tmp_path, "init", "--quiet", "new")
    answer = Desk(folder=tmp_path / "new", remote=tmp_path / "new", capture=capfd).dstack("run", "hello", "-d")
    assert answer.code == 1
    assert "has no commit yet: make one" in answer.err


def test_no_workflows_file(at: Desk) -> None:
    (at.folder / ".dstack/workflows.yaml").unlink()
    assert "there is no .dstack/workflows.yaml" in refused(at, "run", "hello", "-d")
    assert "`dstack init` writes a sample" in refused(at, "run", "hello", "-d")


FILES = [
    ("commands: echo", "comands: echo", "workflows.yaml:4:5: ", "(did you mean 'commands'?)"),
    ("depends-on: [prepare]", "depends-on: [prepar]", "there is no workflow 'prepar'", "(did you mean 'prepare'?)"),
    ("artifacts: [data]", "artifacts: [../data]", "workflows.yaml:7:17: ", "../data"),
    ("    artifacts: [data]", "    depends-on: [train]", "wait for each other: prepare → train → prepare", ""),
]


@pytest.mark.parametrize(("old", "new", "where", "hint"), FILES)
def test_what_is_wrong_in_the_file(at: Desk, old: str, new: str, where: str, hint: str) -> None:
    assert old in WORKFLOWS
    at.write(".dstack/workflows.yaml", WORKFLOWS.replace(old, new, 1))
    message = refused(at, "run", "hello", "-d")
    assert where in message
    assert hint in message


def test_a_misspelt_workflow(at: Desk) -> None:
    assert refused(at, "run", "trian") == (
        "dstack: .dstack/workflows.yaml has no workflow 'trian' (did you mean 'train'?)\n"
    )


def test_a_misspelt_variable(at: Desk) -> None:
    assert refused(at, "run", "hello", "-d", "--whoo", "me") == (
        "dstack: workflow 'hello' has no variable 'whoo' (did you mean 'who'?)\n"
    )


def test_a_value_the_matrix_does_not_have(at: Desk) -> None:
    assert "lr of workflow 'train' takes '0.1', '0.2'; not '0.3'" in refused(at, "run", "train", "--lr", "0.3")


def test_too_large_untracked_content(at: Desk) -> None:
    with (at.folder / "model.bin").open("wb") as file:
        file.truncate(60 * 1024 * 1024)
    assert "model.bin" in refused(at, "run", "hello", "-d")


def test_no_right_to_push(at: Desk) -> None:
    hook(at.remote, "pre-receive", "echo 'Permission denied to ada'; exit 1")
    message = refused(at, "run", "hello", "-d")
    assert "refused the push" in message
    assert "ask for the right to push" in message


def test_a_remote_that_is_away(at: Desk) -> None:
    shutil.rmtree(at.remote)
    answer = at.dstack("run", "hello", "-d")
    assert answer.code == 1
    assert f"the state remote {at.remote} can't be reached" in answer.err


def test_a_name_that_is_taken(at: Desk) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "mine").code == 0
    assert refused(at, "run", "hello", "-d", "--name", "mine") == (
        "dstack: there is a run called 'mine' already: choose another --name, or leave it out\n"
    )


def test_a_name_that_is_none(at: Desk) -> None:
    assert "'Mine!' can't name a run" in refused(at, "run", "hello", "--name", "Mine!")


def test_a_run_that_there_is_not(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "mine")
    assert refused(at, "status", "minne") == "dstack: there is no run 'minne': did you mean 'mine'?\n"
    assert "there is no run or job 'zzz'" in refused(at, "logs", "zzz")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "hello", "--detatch"], "Did you mean '--detach'?"),
        (["run", "hello", "--json"], "--json goes with --detach or --dry-run"),
        (["run", "hello", "--var", "x"], "write NAME=VALUE"),
        (["stop"], "name runs or jobs"),
        (["status", "--last", "0"], "Invalid value"),
        (["logs", "x", "-f", "--attempt", "1"], "leave out --attempt"),
    ],
)
def test_wrong_usage_is_exit_code_2(at: Desk, args: list[str], hint: str) -> None:
    answer = at.dstack(*args)
    assert answer.code == 2
    assert hint in answer.err
