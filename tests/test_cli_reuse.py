"""What users see of reuse, with real daemons: what stands in for what, why not, and whose logs and artifacts it has."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from dstack.store.location import folder_of
from tests.calls import Desk, desk
from tests.test_cli_runs import up

WORKFLOWS = """workflows:
- name: prepare
  commands: [cat src/*.txt > data, echo prepared]
  artifacts: [data]
  depends-on: {repo: {include: ["src/*.txt"]}}
- name: train
  commands: ['echo "$lr" > model', ls]
  artifacts: [model]
  depends-on: [prepare]
"""


def outlook(err: str) -> dict[str, str]:
    """By job, what `dstack run` foretold."""
    lines = [line for line in err.splitlines() if line.startswith("  ")]
    return {line.split()[1].rstrip(",:"): line.partition(": ")[2] for line in lines}


def reused(at: Desk, run: str) -> Mapping[str, str | None]:
    """By workflow, the run whose job stands in."""
    (line,) = at.dstack("status", run, "--json").json
    assert line["status"] == "DONE"
    return {job["workflow"]: (job["reused_from"] or {}).get("run") for job in line["jobs"]}


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    at = desk(tmp_path, capfd)
    at.write(".dstack/workflows.yaml", WORKFLOWS)
    at.write(".dstack/variables.yaml", "variables: {train: {lr: 0.1}}\n")
    at.write("src/a.txt", "a\n")
    return at


def store(at: Desk, run: str) -> Path:
    (line,) = at.dstack("status", run, "--json").json
    return folder_of(line["store"])


def test_a_pipeline_that_is_done_is_not_done_again(at: Desk) -> None:
    with up(at):
        first = at.dstack("run", "train", "--name", "first")
        assert outlook(first.err) == {"prepare": "new", "train": ""}
        assert reused(at, "first") == {"prepare": None, "train": None}

        again = at.dstack("run", "train", "--name", "again")
        assert outlook(again.err) == {"prepare": "reused from first", "train": "reused from first"}
        assert reused(at, "again") == {"prepare": "first", "train": "first"}
        assert "Nothing had to run" in again.err
        assert "prepared" not in again.out
        assert "DONE, reused from first" in at.dstack("status", "again").out
        assert at.dstack("logs", "again").out == at.dstack("logs", "first").out
        files = [(line["file"], line["sha256"]) for line in at.dstack("artifacts", "again", "--json").json]
        assert files == [(line["file"], line["sha256"]) for line in at.dstack("artifacts", "first", "--json").json]

        changed = at.dstack("run", "train", "--name", "changed", "--lr", "0.2")
        assert outlook(changed.err)["train"] == "new (variable lr: 0.1 → 0.2, since first)"
        assert reused(at, "changed") == {"prepare": "first", "train": None}

        at.write("other.txt", "not declared by prepare\n")
        dry = at.dstack("run", "train", "--dry-run")
        assert "new (files of the repository, since first)" in dry.out
        assert "1 of them would be reused" in dry.err
        jobs = {job["workflow"]: job for job in at.dstack("run", "train", "--dry-run", "--json").json["jobs"]}
        assert jobs["prepare"]["reused_from"]["run"] == "first"
        assert jobs["train"]["differs"] == ["files of the repository"]
        at.dstack("run", "train", "--name", "grown")
        assert reused(at, "grown") == {"prepare": "first", "train": None}

        forced = at.dstack("run", "train", "--no-cache", "--name", "forced")
        assert outlook(forced.err)["prepare"] == "new (--no-cache)"
        assert reused(at, "forced") == {"prepare": None, "train": None}

        # Whatever is in the store is only a hint: what is gone runs again.
        for folder in store(at, "first").glob("*/cache"):
            shutil.rmtree(folder)
    with up(at):
        at.dstack("run", "train", "--name", "without-hints")
        assert reused(at, "without-hints") == {"prepare": None, "train": None}
        for folder in store(at, "first").glob("*/objects"):
            shutil.rmtree(folder)
    with up(at):
        at.dstack("run", "train", "--name", "without-objects")
        assert reused(at, "without-objects") == {"prepare": None, "train": None}
