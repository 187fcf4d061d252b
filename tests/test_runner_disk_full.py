"""A runner's disk is full: while output is kept, artifacts are gathered, an image is unpacked. Nothing is lost."""

import errno
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dstack.model.job import Reason
from dstack.model.status import Status
from runner import following
from runner.absolute import export_all
from runner.container import DockerExecutor
from runner.executor import Exit, StartFailed
from tests import docker_engine, docker_images, image_registry
from tests.agents import FakeExecutor, Office
from tests.attempts import ended, launch, output, until
from tests.docker_engine import DockerEngine, alone
from tests.duties import a_job, given_job

MIB = 2**20
LOUD = "yes 0123456789abcdefghijklmnopqrstuvwxyz | head -n 80000; echo last; exit 7"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)


@pytest.fixture
def executor(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[DockerExecutor]:
    docker_engine.busybox()
    instance = f"d15c{abs(hash(tmp_path)):x}"
    executor = DockerExecutor(lambda: None, instance=instance, base_url=docker_engine.url, pauses=())
    yield executor
    for key in executor.leftovers():
        executor.remove(key)
    executor.close()


@pytest.mark.docker
def test_output_waits_for_room_and_all_of_it_comes(executor: DockerExecutor, small: Path) -> None:
    one = launch(small, LOUD, job={"image": "dstack-busybox"})
    executor.start(one)
    until(lambda: shutil.disk_usage(small).free < 128 * 1024)
    assert executor.exited(one.key) is None
    enlarge(small)
    assert ended(executor, one.key, 40).exit_code == 7
    assert output(one.folder) == b"0123456789abcdefghijklmnopqrstuvwxyz\n" * 80_000 + b"last\n"


@pytest.mark.docker
def test_output_that_never_gets_room_ends_the_attempt(
    executor: DockerExecutor, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FULL_TRIES", 3)
    one = launch(small, LOUD, job={"image": "dstack-busybox"})
    executor.start(one)
    exit_ = ended(executor, one.key, 40)
    assert (exit_.exit_code, exit_.reason) == (None, Reason.DISK_FULL)
    executor.remove(one.key)
    enlarge(small)
    other = launch(small, "exit 3", key="other.1", job={"image": "dstack-busybox"})
    executor.start(other)
    assert ended(executor, other.key).exit_code == 3


@pytest.mark.docker
def test_artifacts_of_a_container_are_gathered_when_there_is_room(executor: DockerExecutor, small: Path) -> None:
    script = "mkdir /data; head -c 3000000 /dev/zero > /data/model"
    one = launch(small, script, job={"image": "dstack-busybox"})
    executor.start(one)
    assert ended(executor, one.key).exit_code == 0
    with pytest.raises(OSError, match="No space left") as full:
        export_all(executor, one.key, one.folder, ["/data"])
    assert full.value.errno == errno.ENOSPC
    assert shutil.disk_usage(small).free > MIB // 2
    enlarge(small)
    place = export_all(executor, one.key, one.folder, ["/data"])("/data")
    assert place is not None
    assert (place / "model").stat().st_size == 3_000_000


@pytest.mark.docker
def test_an_image_that_there_is_no_room_for_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)], check=True)
    try:
        with image_registry.registry() as registry, alone(f"--data-root={data}") as engine:
            with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                name = registry.add("team/image", "1", Path(file.name), docker_images.busybox(Path(file.name)))
            executor = DockerExecutor(lambda: None, instance="full", base_url=engine.url, pauses=())
            filler = data / "filler"
            # So little is left that the layer can be fetched and not unpacked, or not even fetched.
            filler.write_bytes(bytes(shutil.disk_usage(data).free - MIB))
            one = launch(tmp_path, "exit 3", job={"image": name})
            with pytest.raises(StartFailed, match="there is no room for the image") as failed:
                executor.start(one)
            assert failed.value.reason is Reason.DISK_FULL
            filler.unlink()
            executor.start(one)
            assert ended(executor, one.key).exit_code == 3
            executor.remove(one.key)
            executor.close()
    finally:
        for mount in reversed(docker_engine.mounts(data)):
            subprocess.run(["umount", "--lazy", mount], check=True)
        subprocess.run(["umount", "--lazy", str(data)], check=True)


@dataclass
class Exporting(FakeExecutor):
    """Exports an artifact, where there is `room`."""

    room: bool = False
    exported: list[str] = field(default_factory=list)

    def export(self, key: str, path: str, target: Path) -> bool:
        """See Exports."""
        self.exported.append(f"{key} {path}")
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        target.write_text("result")
        return True


def test_artifacts_wait_for_room_on_the_runner_and_are_saved_then(tmp_path: Path) -> None:
    office = Office(tmp_path)
    executor = office.executor = Exporting(fuse=office.fuse, ends={"train": Exit(exit_code=0)})
    office.new_agent()
    one = given_job(a_job(artifacts=("/data/out",)))
    office.assign(one)
    office.settle(120.0)
    assert len(executor.exported) > 1
    assert "ended" not in office.told(one)
    executor.room = True
    office.settle(90.0)
    claim = office.claim(one)
    assert (claim.status, claim.reason, claim.artifacts_size) == (Status.DONE, Reason.OK, 6)


def test_artifacts_that_never_get_room_fail_the_job(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.executor = Exporting(fuse=office.fuse, ends={"train": Exit(exit_code=0), "other": Exit(exit_code=0)})
    office.new_agent()
    one, other = given_job(a_job(artifacts=("/data/out",))), given_job(a_job("other"))
    office.assign(one)
    office.settle(3700.0)
    claim = office.claim(one)
    assert (claim.status, claim.reason) == (Status.FAILED, Reason.DISK_FULL)
    assert "the disk of the runner is full" in claim.message
    office.assign(other)
    office.settle(5.0)
    assert office.claim(other).status is Status.DONE
