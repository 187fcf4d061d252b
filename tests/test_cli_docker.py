"""Runs in containers, from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from tests.calls import desk
from tests.docker_engine import DockerEngine, client

WORKFLOWS = """\
workflows:
  - name: make
    image: {image}
    commands: mkdir -p out && echo "made in $(hostname | wc -c)" && echo made > out/made.txt
    artifacts: [out]
  - name: use
    image: {image}
    depends-on: [make]
    commands: cat out/made.txt && exit 4
"""


@pytest.mark.docker
def test_a_chain_in_containers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    at = desk(tmp_path, capfd)
    at.write(".dstack/workflows.yaml", WORKFLOWS.format(image=docker_engine.busybox()))
    (at.folder / ".dstack/variables.yaml").unlink()
    answer = at.dstack("run", "use", "--local", "--name", "first")
    assert answer.code == 1, answer
    assert "use  | made" in answer.out
    jobs = at.dstack("status", "first", "--json").json[0]["jobs"]
    assert [(job["status"], job["exit_code"]) for job in jobs] == [("DONE", 0), ("FAILED", 4)]
    assert all(job["image"].startswith("sha256:") for job in jobs)


@pytest.mark.docker
def test_the_docker_example_counts_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    with client(docker_engine.url) as api:
        api.tag(docker_engine.python(), "python", "3.12-slim")  # so nothing is pulled
    at = desk(tmp_path, capfd)
    shutil.rmtree(at.folder / ".dstack")
    shutil.copytree(Path(__file__).parents[1] / "examples" / "docker", at.folder, dirs_exist_ok=True)
    answer = at.dstack("run", "count", "--local", "--top", "3", "--name", "words")
    assert answer.code == 0, answer
    assert at.dstack("artifacts", "words", "-o", str(tmp_path / "out")).code == 0
    (counts,) = (tmp_path / "out").rglob("words.json")
    assert len(json.loads(counts.read_text())) == 3
