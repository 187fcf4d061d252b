"""Volumes and caches in real containers: seen where they were asked for, read-only where that was said, and kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from runner import lending
from runner.caches import Caches
from runner.container import DockerExecutor
from runner.executor import Launch, Lent
from tests.attempts import ended, launch, output
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker


@pytest.fixture
def executor(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[DockerExecutor]:
    executor = DockerExecutor(lambda: None, instance=f"1e47{abs(hash(tmp_path)):x}", base_url=docker_engine.url)
    yield executor
    for key in executor.leftovers():
        executor.remove(key)
    executor.close()


def test_a_container_sees_volumes_and_caches_and_leaves_the_checkout_alone(
    executor: DockerExecutor, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    data, caches = tmp_path / "data", Caches(tmp_path / "caches")
    data.mkdir()
    (data / "precious").write_text("for all\n")
    script = "cat data/precious /ro/precious; echo x >> data/new; echo x 2>/dev/null > /ro/new || echo kept; "
    script += "cat ../.cache/wheel /root/.cache/wheel 2>/dev/null || true; "
    script += "echo wheel > ../.cache/wheel; echo wheel > /root/.cache/wheel"

    def lent(key: str) -> Launch:
        one = launch(tmp_path, script, key=key, job={"image": docker_engine.busybox(), "working_dir": "sub"})
        (one.tree / "sub").mkdir()
        job = msgspec.structs.replace(one.job, cache_dirs=("/workflow/.cache", "/root/.cache"))
        caches.make(job)
        volumes = (Lent(here=data, path="data"), Lent(here=data, path="/ro", read_only=True))
        lending.put(one.tree, job, (*volumes, *caches.of(job)))
        return replace(one, job=job, lent=(*volumes, *caches.of(job)))

    printed = []
    for key in ("first.1", "second.1"):
        one = lent(key)
        executor.start(one)
        assert ended(executor, key).exit_code == 0
        executor.remove(key)
        printed.append(output(one.folder))
        left = sorted(str(path.relative_to(one.tree)) for path in one.tree.rglob("*"))
        assert left == [".cache", "sub", "sub/data"], "only what they were mounted on"
    assert printed == [b"for all\nfor all\nkept\n", b"for all\nfor all\nkept\nwheel\nwheel\n"]
    assert (data / "new").read_text() == "x\nx\n"
    assert (data / "precious").read_text() == "for all\n"
