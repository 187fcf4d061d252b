"""Artifacts at absolute paths of a container: saved from one, and in place in the next."""

from pathlib import Path

import pytest

from dstack.model.job import Reason
from dstack.model.status import Status
from dstack.store import artifacts
from runner import absolute
from tests import image_registry
from tests.daemons import Pool, kill, wait_until
from tests.docker_engine import DockerEngine
from tests.duties import a_job

WRITE = "mkdir -p /data/set; echo one > /data/set/1; chmod 600 /data/set/1; ln -s 1 /data/set/link; echo m > /model"


@pytest.fixture
def pool(tmp_path: Path, docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    docker_engine.busybox()
    return Pool(tmp_path, executors=("docker",))


@pytest.mark.docker
def test_from_one_container_to_the_next(pool: Pool) -> None:
    first = a_job("first", image="dstack-busybox", commands=(WRITE,), artifacts=("/data/set", "/model", "/nowhere"))
    again = "cat /data/set/1 /model train.py; ls -l /data/set/link; echo two >> /data/set/1"
    second = a_job("second", image="dstack-busybox", commands=(again,), artifacts=("/data/set",))
    with pool.runner():
        pool.assign(first)
        claim = pool.claim(first)
        assert claim.status is Status.DONE, claim
        assert claim.manifest is not None
        assert any("/nowhere" in warning for warning in claim.warnings)
        pool.assign(second, inputs=(claim.manifest,))
        later = pool.claim(second)
    assert later.status is Status.DONE, pool.log(second)
    output, closed = pool.log(second)
    assert output.startswith(b"one\nm\nprint('hello')\n")
    assert b"link -> 1" in output
    assert closed
    files = {one.path: one.size for one in artifacts.listing(artifacts.load(pool.store, later.manifest or ""))}
    assert files == {"/data/set/1": len("one\ntwo\n"), "/data/set/link": 0}


@pytest.mark.docker
def test_a_container_goes_on_when_its_runner_is_killed(pool: Pool) -> None:
    commands = ("for i in $(seq 20); do echo line $i; sleep 0.1; done", "mkdir /out; echo x > /out/x")
    job = a_job(image="dstack-busybox", commands=commands, artifacts=("/out",))
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: b"line 3" in pool.log(job)[0])
        kill(runner)
    with pool.runner():
        claim = pool.claim(job)
    assert claim.status is Status.DONE, claim
    assert pool.log(job) == ("".join(f"line {number}\n" for number in range(1, 21)).encode(), True)
    assert claim.artifacts_size == 2


@pytest.mark.docker
def test_an_image_that_is_not_there_is_told(pool: Pool) -> None:
    with image_registry.registry() as registry, pool.runner():
        job = a_job(image=f"{registry.name}/nothing", commands=("true",))
        pool.assign(job)
        claim = pool.claim(job)
    assert claim.reason is Reason.IMAGE_PULL
    assert b"dstack: image-pull: " in pool.log(job)[0]


def test_a_link_is_not_mounted_for_the_engine_would_follow_it_here(tmp_path: Path) -> None:
    places = absolute.inputs_in(tmp_path)
    for path in ("/data", "/link", "/a/" + "b" * 300):
        place = places(path)
        assert place is not None
        assert place.parent == tmp_path / "inputs"
        if path == "/link":
            place.symlink_to("/etc")
        else:
            place.mkdir()
    mounted = absolute.mounts(tmp_path, ("/data", "/link", "/a/" + "b" * 300, "/never", "relative"))
    assert set(mounted) == {"/data", "/a/" + "b" * 300}
