"""The examples: their files are right, and the demonstration does what it promises, as often as one likes."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dstack.model.planner import make_plan
from dstack.model.runspec import Code, RunSpec
from tests.installed import ROOT, search_path

CHAINS = {
    ("digits", "hello"): ["hello"],
    ("digits", "evaluate"): ["prepare", "train", "evaluate"],
    ("docker", "count"): ["corpus", "count"],
}


@pytest.mark.parametrize(("example", "workflow"), CHAINS, ids="-".join)
def test_an_example_can_be_planned(example: str, workflow: str) -> None:
    folder = ROOT / "examples" / example / ".dstack"
    spec = RunSpec(
        repository="r",
        run="fast-rabbit-1",
        workflow=workflow,
        code=Code(commit="c" * 40, snapshot="c" * 40),
        submitted_by="ada",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        nonce="n",
    )
    workflows, variables = (folder / "workflows.yaml").read_bytes(), (folder / "variables.yaml").read_bytes()
    plan = make_plan("d" * 40, spec, workflows, variables)
    assert [job.job.workflow for job in plan.jobs] == CHAINS[example, workflow]


def demonstrate(folder: Path, search: str) -> str:
    result = subprocess.run(
        [str(ROOT / "examples" / "demo.sh"), str(folder)],
        env={**os.environ, "PATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=150,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that mention the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended while we looked
            continue
    return [line for line in lines if str(folder) in line]


@pytest.mark.timeout(400)
def test_the_demonstration_can_be_repeated_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder, search = tmp_path / "a demo", search_path(tmp_path / "bin")
    first, second = demonstrate(folder, search), demonstrate(folder, search)
    assert '"accuracy": 0.98' in first
    assert '"accuracy": 0.98' in second
    metrics = list(folder.glob("results/*/**/metrics.json"))
    assert len(metrics) == 2
    assert json.loads(metrics[0].read_text())["test_pictures"] == 450
    assert list(folder.glob("results/*/**/confusion.png"))
    assert processes_in(tmp_path) == []
