"""Calls the command line as a user does, in this process, and repositories to call it in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import main as door
from tests.repositories import bare, sh, work

WORKFLOWS = """\
workflows:
  - name: hello
    help: Say hello
    commands: echo "hello $who"
  - name: prepare
    commands: mkdir -p data && seq $rows > data/rows.txt
    artifacts: [data]
  - name: train
    help: Count the rows
    depends-on: [prepare]
    matrix: {lr: [0.1, 0.2]}
    commands:
      - mkdir -p models
      - wc -l < data/rows.txt > models/$lr.txt
      - echo trained with $lr
    artifacts: [models]
  - name: sad
    commands: echo oh no >&2; exit 3
"""
VARIABLES = "variables:\n  hello: {who: world}\n  prepare: {rows: 5}\n  global: {batch_size: 8}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command leaves behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 (as json has it)
        """Standard output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A work tree with workflows, and the state remote it pushes to."""

    folder: Path
    remote: Path
    capture: pytest.CaptureFixture[str]

    def dstack(self, *args: str) -> Answer:
        """Call `dstack -C folder …`."""
        self.capture.readouterr()
        code = door.main(["-C", str(self.folder), *args])
        out, err = self.capture.readouterr()
        return Answer(code=code, out=out, err=err)

    def refs(self) -> Mapping[str, str]:
        """All refs of the remote."""
        lines = sh(self.remote, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}

    def write(self, path: str, text: str) -> None:
        """Write a file of the work tree."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def desk(folder: Path, capture: pytest.CaptureFixture[str]) -> Desk:
    """A new work tree with a bare `origin`."""
    made = work(folder / "work")
    (made / ".dstack/workflows.yaml").write_text(WORKFLOWS)
    (made / ".dstack/variables.yaml").write_text(VARIABLES)
    sh(made, "add", "--all")
    sh(made, "commit", "--quiet", "-m", "workflows")
    remote = bare(folder / "remote.git")
    sh(made, "remote", "add", "origin", str(remote))
    sh(made, "push", "--quiet", "origin", "main")
    return Desk(folder=made, remote=remote, capture=capture)


def stored_desk(folder: Path, capture: pytest.CaptureFixture[str]) -> Desk:
    """The same, set up, with a store in `folder`."""
    made = desk(folder, capture)
    assert made.dstack("init", "--store", (folder / "store").as_uri()).code == 0
    return made


def ended_run(at: Desk, workflow: str, *options: str) -> str:
    """A run of a workflow that has ended, by its name."""
    answer = at.dstack("run", workflow, "--local", "-y", *options)
    assert "Run " in answer.err, answer
    return answer.err.partition("Run ")[2].partition(":")[0]
