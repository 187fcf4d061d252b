"""Completion in the very shells: the script is loaded by zsh and fish, and the tab key is pressed."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls import Desk, desk
from tests.installed import search_path

WORKFLOWS = """\
workflows:
- {name: train, help: "Train a model, from its last checkpoint", commands: [x]}
- {name: look, commands: [x]}
"""
PATIENCE = 30.0


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(shell), reason=f"there is no {shell} here")


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = desk(tmp_path, capfd)
    made.write(".dstack/workflows.yaml", WORKFLOWS)
    made.write(".dstack/variables.yaml", "variables: {train: {learning_rate: 0.1}}\n")
    assert made.dstack("run", "look", "-d", "--name", "first", "-y").code == 0
    assert made.dstack("status").code == 0  # keeps what it has seen
    return made


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    path = search_path(tmp_path)
    return {**os.environ, "HOME": str(tmp_path / "home"), "PATH": path, "TERM": "dumb", "PS1": "> "}


@needs("fish")
def test_fish_offers_commands_workflows_variables_and_runs_with_their_whole_sentences(
    at: Desk, environment: dict[str, str]
) -> None:
    lines = ["dstack runn", "dstack run ", "dstack run train --le", "dstack logs "]
    asked = "; ".join(f"complete -C '{line}'" for line in lines)
    answer = subprocess.run(
        ["fish", "--no-config", "-c", f"dstack completion fish | source; {asked}"],
        cwd=at.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert [line.split("\t") for line in answer.stdout.splitlines()] == [
        ["runners", "The machines of the pool"],
        ["look", "Run the workflow look."],
        ["train", "Train a model, from its last checkpoint"],
        ["--learning_rate", "default: 0.1"],
        ["first", "look QUEUED"],
    ]


@pytest.fixture
def zsh(at: Desk, environment: dict[str, str]) -> Iterator[int]:
    """The side of a terminal on which zsh, with its completion, waits for keys."""
    ours, theirs = os.openpty()
    argv = ["zsh", "--no-rcs", "-i"]
    with subprocess.Popen(
        argv, cwd=at.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            yield ours
        finally:
            process.kill()
            os.close(ours)


def shown(side: int, keys: str, text: str) -> str:
    """What a terminal shows from these keys on until `text` has come."""
    os.write(side, keys.encode())
    found, end = "", time.monotonic() + PATIENCE
    while text not in found:
        ready, _, _ = select.select([side], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{text!r} never came: {found!r}"
        found += os.read(side, 4096).decode(errors="replace")
    return found


@needs("zsh")
def test_zsh_completes_commands_workflows_variables_and_runs(zsh: int, tmp_path: Path) -> None:
    dump = tmp_path / "compdump"
    shown(zsh, f"autoload -Uz compinit; compinit -u -d {dump}; unsetopt list_beep\n", "> ")
    shown(zsh, 'eval "$(dstack completion zsh)"; print loaded$(( 1 + 1 ))\n', "loaded2")
    for keys, text in (
        ("dstack runn\t", "ers"),
        ("\x15dstack run tr\t", "train "),
        ("--lea\t", "rning_rate"),
        ("\x15dstack logs fi\t", "rst "),
    ):
        shown(zsh, keys, text)
