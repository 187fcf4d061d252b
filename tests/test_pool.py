"""What the whole shows: daemons killed in the middle, several controllers, and a story that plain git tells."""

import hashlib
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import DockerEngine
from tests.pool import Pool, pool
from tests.repositories import sh

LINES = 30
COUNT = f"for i in $(seq {LINES}); do echo line $i; sleep 0.1; done; mkdir -p out; echo result > out/x; chmod 750 out/x"
WORKFLOWS = f"""
workflows:
- {{name: prepare, commands: ['{COUNT}'], artifacts: [out]}}
- name: train
  depends-on: [prepare]
  commands: ['cat out/x; printf "\\000\\377" > out/y; ln -s x out/z']
  artifacts: [out/y, out/z]
- {{name: many, commands: ['echo $n'], matrix: {{n: {list(range(100))}}}}}
"""
IN_DOCKER = f"""
workflows:
- {{name: prepare, image: dstack-busybox, commands: ['{COUNT}'], artifacts: [out]}}
- {{name: train, image: dstack-busybox, depends-on: [prepare], commands: ['cat out/x'], artifacts: [/data/y]}}
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Pool]:
    with pool(tmp_path, WORKFLOWS) as made:
        made.configure_runner("otter", "--executor", "process", "--cpu", "2")
        yield made


@pytest.fixture
def docked(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Pool]:
    docker_engine.busybox()
    with pool(tmp_path, IN_DOCKER, DOCKER_HOST=docker_engine.url) as made:
        made.configure_runner("otter", "--executor", "docker", "--cpu", "2")
        yield made


def killed_in_the_middle(at: Pool, victims: list[str]) -> None:
    """Kill, wait a little, start again: the run ends DONE, each job once, its log whole."""
    at.start_controller("controller")
    at.start_runner("otter")
    at.dstack("run", "train", "-d", "--name", "run-1")
    at.eventually(lambda: at.view("run-1").state.planned is not None and "line 5" in at.dstack("logs", "run-1"))
    for name in victims:
        at.kill(name)
    time.sleep(0.5)
    if "controller" in victims:
        at.start_controller("controller")
    if "otter" in victims:
        at.start_runner("otter")
    at.eventually(lambda: at.status("run-1") == "DONE")
    history = at.history("run-1")
    assert set(history.values()) == {(1, 1)}, f"{history}\n{at.logs()}"
    lines = [line.partition("| ")[2] for line in at.dstack("logs", "run-1").splitlines()]
    assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(1, LINES + 1)]


@pytest.mark.parametrize("victims", [["controller"], ["otter"], ["controller", "otter"]])
def test_a_process_job_survives_the_death_of(at: Pool, victims: list[str]) -> None:
    killed_in_the_middle(at, victims)


@pytest.mark.docker
@pytest.mark.parametrize("victims", [["controller"], ["otter"], ["controller", "otter"]])
@pytest.mark.timeout(120)
def test_a_docker_job_survives_the_death_of(docked: Pool, victims: list[str]) -> None:
    killed_in_the_middle(docked, victims)


@pytest.mark.timeout(120)
def test_two_controllers_finish_a_hundred_jobs_once_each(at: Pool) -> None:
    at.start_controller("one")
    at.start_controller("two")
    at.start_runner("otter")
    at.dstack("run", "many", "-d", "--name", "run-1")
    at.eventually(lambda: at.view("run-1").state.finished is not None, 90.0)
    history = at.history("run-1")
    assert len(history) == 100
    assert {ended for _, ended in history.values()} == {1}
    assert at.status("run-1") == "DONE"


def test_plain_git_tells_the_story(at: Pool) -> None:
    at.start_controller()
    at.start_runner("otter")
    at.dstack("run", "train", "--name", "run-1")
    sh(at.code, "fetch", "--quiet", "origin")
    sh(at.code, "fetch", "--quiet", "origin", "+refs/notes/dstack/*:refs/notes/dstack/*")
    story = sh(at.code, "log", "--notes=dstack/run-1.*/*", "origin/dstack/runs/run-1")
    for words in ("planned 2 jobs of train", "prepare: DONE (ok) on otter", "run-1 is DONE: 2 DONE"):
        assert words in story
    job = at.json("status", "run-1")[0]["jobs"][0]
    spec = json.loads(sh(at.code, "cat-file", "-p", job["job"]))
    assert (spec["workflow"], spec["artifacts"]) == ("prepare", ["out"])
    key = at.view("run-1").key
    note = sh(at.code, "notes", f"--ref=dstack/{key}/otter", "show", job["job"])
    assert [json.loads(line)["event"] for line in note.splitlines()] == ["started", "ended"]


def test_artifacts_come_back_byte_for_byte(at: Pool, tmp_path: Path) -> None:
    at.start_controller()
    at.start_runner("otter")
    at.dstack("run", "train", "--name", "run-1")
    at.dstack("artifacts", "run-1", "-o", str(tmp_path / "got"))
    listed = {item["file"]: item for item in at.json("artifacts", "run-1")}
    found = {path.name: path for path in (tmp_path / "got").rglob("*") if not path.is_dir()}
    assert set(found) == {"x", "y", "z"}
    assert found["x"].read_bytes() == b"result\n"
    assert found["y"].read_bytes() == b"\0\377"
    assert found["z"].is_symlink()
    assert stat.S_IMODE(found["x"].stat().st_mode) == 0o750
    assert listed["x"]["sha256"] == hashlib.sha256(b"result\n").hexdigest()


@pytest.mark.docker
@pytest.mark.timeout(120)
def test_a_chain_in_docker(docked: Pool, tmp_path: Path) -> None:
    docked.start_controller()
    docked.start_runner("otter")
    docked.dstack("run", "train", "--name", "run-1")
    assert "train   | result" in docked.dstack("logs", "run-1")
    docked.dstack("artifacts", "run-1", "-o", str(tmp_path / "got"))
    assert [path.read_text() for path in (tmp_path / "got").rglob("x")] == ["result\n"]
