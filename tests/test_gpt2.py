"""The shape of a fine-tuning project, from its first run to the story its model tells: reuse, stop, resume, tags."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installed import ROOT
from tests.pool import Pool, pool
from tests.repositories import sh

EXAMPLE = ROOT / "examples" / "gpt2"
RATE = "0.00005"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Pool]:
    with pool(tmp_path, "workflows: []") as made:
        shutil.copytree(EXAMPLE, made.code, dirs_exist_ok=True)
        sh(made.code, "add", "--all")
        sh(made.code, "commit", "--quiet", "-m", "project")
        made.start("up", "dstack", "up")
        yield made


def finetune(project: Pool, *options: str, detach: bool = False) -> str:
    """The run's name."""
    if detach:
        return project.dstack("run", "finetune-model", "-d", "-y", *options).strip()
    project.dstack("run", "finetune-model", "-y", *options)
    name: str = project.json("status", "--last", "1")[0]["run"]
    return name


def jobs(project: Pool, run: str) -> dict[str, dict[str, Any]]:
    return {job["workflow"]: job for job in project.json("status", run)[0]["jobs"]}


@pytest.mark.timeout(150)
def test_a_model_is_trained_changed_stopped_resumed_and_used(project: Pool) -> None:
    # Three jobs, in order, with floats, sizes and names as they were written.
    first = finetune(project, "--model", "117M")
    done = jobs(project, first)
    assert [job["status"] for job in done.values()] == ["DONE"] * 3
    ends = [done[name]["finished_at"] for name in ("download-model", "encode-dataset", "finetune-model")]
    assert ends == sorted(ends)
    log = project.dstack("logs", first)
    assert "training 117M with adam, 12GB, rate 2e-05" in log
    assert done["finetune-model"]["variables"]["learning_rate"] == "0.00002"

    # Only the learning rate has changed: what doesn't depend on it is reused.
    second = finetune(project, "--model", "117M", "--learning_rate", RATE)
    again = jobs(project, second)
    origins = {name: (job["reused_from"] or {}).get("run") for name, job in again.items()}
    assert origins == {"download-model": first, "encode-dataset": first, "finetune-model": None}

    # Stopped in the middle, it leaves a checkpoint; resumed, it goes on from there.
    third = finetune(project, "--model", "117M", "--steps", "30", "--step_seconds", "0.4", detach=True)
    project.eventually(lambda: "step 10" in project.dstack("logs", third, expect=None))
    project.dstack("stop", third)
    assert project.status(third) == "STOPPED"
    project.dstack("resume", third, "-y", "-f")
    assert project.status(third) == "DONE"
    log = project.dstack("logs", jobs(project, third)["finetune-model"]["job"])
    going_on = int(log.partition("going on from the checkpoint of step ")[2].split()[0])
    assert 10 <= going_on < 30
    assert f"saved a checkpoint at step {30}" in log

    # Tagged, it serves another workflow, which makes no job of it.
    project.dstack("tag", second)
    told = project.dstack("run", "tell-story", "-y")
    assert len(told) > 100
    (teller,) = project.json("status", "--last", "1")[0]["jobs"]
    assert (teller["workflow"], teller["status"]) == ("tell-story", "DONE")

    # What was measured, side by side.
    rows = json.loads(project.dstack("metrics", first, second, "--json"))
    losses = [row["metrics"]["loss"] for row in rows if "loss" in row["metrics"]]
    assert len(losses) == 2
    assert losses[1] < losses[0]
