"""Runners as daemons of their own: drained, two on one machine, and GPUs from a fake `nvidia-smi`."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pool import Pool, pool
from tests.repositories import sh

WORKFLOWS = """
workflows:
  - name: slow
    commands:
      - touch {marks}/$DSTACK_RUN
      - while [ ! -e {marks}/go ]; do sleep 0.05; done
      - echo done > out
    artifacts: [out]
    resources: {{cpu: 0.5}}
  - name: seen
    commands: [echo "gpus=$CUDA_VISIBLE_DEVICES" > out, touch {marks}/$DSTACK_RUN]
    artifacts: [out]
    resources: {{cpu: 0.1}}
  - name: train
    commands:
      - printf %s "$CUDA_VISIBLE_DEVICES" > {marks}/$DSTACK_RUN.new
      - mv {marks}/$DSTACK_RUN.new {marks}/$DSTACK_RUN
      - while [ ! -e {marks}/go ]; do sleep 0.05; done
    resources: {{cpu: 0.1, V100/gpu: 1}}
  - name: large
    commands: ["true"]
    resources: {{gpu: {{count: 3, memory: 10GB}}}}
  - name: labelled
    commands: [touch {marks}/$DSTACK_RUN]
    labels: [big]
    resources: {{cpu: 0.1}}
"""
SMI = """#!/bin/sh
echo '0, Tesla V100-SXM2-16GB, 16160, GPU-a'
echo '1, Tesla V100-SXM2-16GB, 16160, GPU-b'
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def at(tmp_path: Path, marks: Path) -> Iterator[Pool]:
    with pool(tmp_path, WORKFLOWS.format(marks=marks)) as made:
        (tmp_path / "bin" / "nvidia-smi").write_text(SMI)
        (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
        try:
            yield made
        finally:
            (marks / "go").touch()


def runner(at: Pool, name: str, *words: str, expect: int = 0) -> str:
    """What a `dstack-runner` command prints."""
    command = ["dstack-runner", "--state", str(at.folder / f"{name}-state"), *words]
    done = subprocess.run(
        command, cwd=at.code, env=at.environment, capture_output=True, text=True, check=False, timeout=55
    )
    assert done.returncode == expect, (words, done.stdout, done.stderr, at.logs())
    return done.stdout + done.stderr


def start(at: Pool, name: str, *options: str) -> None:
    at.configure_runner(name, "--executor", "process", *options)
    at.start_runner(name)


def submit(at: Pool, run: str, workflow: str) -> None:
    at.dstack("run", workflow, "--name", run, "-d", "-y")


def status_of(at: Pool, name: str) -> str:
    return next((str(one["status"]) for one in at.json("runners") if one["runner"] == name), "")


def test_a_runner_is_drained_while_its_job_goes_on_elsewhere_nothing_is_lost(at: Pool, marks: Path) -> None:
    assert "no runner works with" in runner(at, "aa", "drain", expect=1)
    at.start_controller()
    start(at, "aa", "--gpu", "none")
    submit(at, "first", "slow")
    at.eventually((marks / "first").exists)
    runner(at, "aa", "drain")
    at.eventually(lambda: status_of(at, "aa") == "draining")
    submit(at, "second", "seen")
    at.eventually(lambda: "aa is draining" in at.json("status", "second")[0]["jobs"][0]["message"])
    # Killed in the middle, it goes on draining when it is started again.
    at.kill("aa")
    at.start_runner("aa")
    at.eventually(lambda: status_of(at, "aa") == "draining")
    start(at, "bb", "--gpu", "none")
    at.eventually(lambda: at.status("second") == "DONE")
    assert at.daemons["aa"].poll() is None
    asked = at.folder / "aa-state" / "drain"
    before = asked.stat().st_mtime_ns
    at.start("wait", "dstack-runner", "--state", str(asked.parent), "drain", "--wait")
    at.eventually(lambda: asked.stat().st_mtime_ns != before)
    assert at.daemons["wait"].poll() is None
    (marks / "go").touch()
    assert at.daemons["wait"].wait(30) == at.daemons["aa"].wait(30) == 0
    assert "nothing in hand" in (at.folder / "wait.log").read_text()
    assert not asked.exists()
    assert (at.status("first"), status_of(at, "aa")) == ("DONE", "gone")
    assert list(at.history("first").values()) == [(1, 1)]


def test_a_second_sigterm_stops_what_the_first_let_go_on(at: Pool, marks: Path) -> None:
    at.start_controller()
    start(at, "aa", "--gpu", "none")
    submit(at, "first", "slow")
    at.eventually((marks / "first").exists)
    at.daemons["aa"].send_signal(signal.SIGTERM)
    at.eventually(lambda: status_of(at, "aa") == "draining")
    assert at.status("first") == "RUNNING"
    at.daemons["aa"].send_signal(signal.SIGTERM)
    assert at.daemons["aa"].wait(30) == 0
    (marks / "go").touch()
    start(at, "bb", "--gpu", "none")
    at.eventually(lambda: at.status("first") == "DONE")
    assert list(at.history("first").values()) == [(2, 1)]


def test_two_runners_on_one_machine_share_out_jobs_by_gpu_and_label(at: Pool, marks: Path) -> None:
    at.start_controller()
    start(at, "aa", "--gpu", "0")
    start(at, "bb", "--gpu", "1", "--label", "big")
    at.eventually(lambda: [status_of(at, name) for name in ("aa", "bb")] == ["live", "live"])
    for run, workflow in (("one", "train"), ("two", "train"), ("none", "seen"), ("huge", "large"), ("tag", "labelled")):
        submit(at, run, workflow)
    at.eventually(lambda: all((marks / run).exists() for run in ("one", "two", "none", "tag")))
    assert {(marks / run).read_text() for run in ("one", "two")} == {"0", "1"}
    at.eventually(lambda: at.status("tag") == at.status("none") == "DONE")
    at.dstack("artifacts", "none", "-o", str(at.folder / "got"))
    assert [path.read_text() for path in (at.folder / "got").rglob("out")] == ["gpus=\n"]
    assert at.json("status", "tag")[0]["jobs"][0]["runner"] == "bb"
    why = at.json("status", "huge")[0]["jobs"][0]["message"]
    assert why == "no live runner can take it: aa has 1 GPU in all; bb has 1 GPU in all"
    shown = {one["runner"]: (one["gpus"], one["labels"]) for one in at.json("runners")}
    assert shown == {"aa": (["Tesla V100-SXM2-16GB"], []), "bb": (["Tesla V100-SXM2-16GB"], ["big"])}
    # Both restarted at once, each takes up its own job, and its GPU stays taken.
    submit(at, "third", "train")
    for name in ("aa", "bb"):
        at.kill(name)
        at.start_runner(name)
    at.eventually(lambda: [status_of(at, name) for name in ("aa", "bb")] == ["live", "live"])
    assert not (marks / "third").exists()
    (marks / "go").touch()
    at.eventually(lambda: [at.status(run) for run in ("one", "two", "third")] == ["DONE"] * 3)
    assert [sum(a for a, _ in at.history(run).values()) for run in ("one", "two")] == [1, 1]
    assert (marks / "third").read_text() in {"0", "1"}
    assert json.loads(runner(at, "aa", "status", "--json"))["runner"] == "aa"


def said(at: Pool, name: str) -> str:
    """How a daemon ended, and its last words."""
    code = at.daemons[name].wait(40)
    assert code == 1, at.logs()
    return (at.folder / f"{name}.log").read_text()


def test_a_name_is_one_runners_until_it_is_taken_over_or_its_folder_copied(at: Pool) -> None:
    config = at.folder / "config"
    sh(at.folder, "clone", "--quiet", "--branch", "dstack/config", str(at.remote), str(config))
    with (config / "config.yaml").open("a") as file:
        file.write("lease: 4\n")
    sh(config, "commit", "--quiet", "-am", "A short lease")
    sh(config, "push", "--quiet")
    start(at, "aa")
    at.eventually(lambda: status_of(at, "aa") == "live")
    start(at, "bb", "--name", "aa")
    assert "the name aa belongs to a live runner" in said(at, "bb")
    assert at.daemons["aa"].poll() is None
    at.start("thief", "dstack-runner", "--state", str(at.folder / "bb-state"), "start", "--takeover")
    assert "the name aa was taken over" in said(at, "aa")
    at.eventually(lambda: status_of(at, "aa") == "live")
    shutil.copytree(at.folder / "bb-state", at.folder / "copy-state")
    at.start_runner("copy")
    assert "was started with a copy of this state folder" in said(at, "thief")
    assert at.daemons["copy"].poll() is None
    at.eventually(lambda: status_of(at, "aa") == "live")
