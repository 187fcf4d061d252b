"""GPUs of a machine as `nvidia-smi` tells them: a fake one says all that a real one may."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.model.errors import Invalid
from dstack.model.gpus import Gpu
from dstack.model.job import Gpus, Job, Resources
from dstack.model.pool import Capacity, Phase
from runner.nvidia import MIB, chosen, detected_gpus, environment, parse, read_setting
from runner.process import ProcessExecutor
from runner.recipe import container, gpus_of
from tests.agents import Killed, Office, wait_until
from tests.attempts import launch
from tests.duties import a_job, given_job

GOOD = "0, Tesla V100-SXM2-16GB, 16160, GPU-1\n1, NVIDIA A100, PCIe, 40960, GPU-2\n"
FIRST = Gpu(index=0, name="Tesla V100-SXM2-16GB", memory=16160 * MIB)


def fake(folder: Path, script: str) -> str:
    """A folder to find `nvidia-smi` in."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_what_it_lists_is_there(tmp_path: Path) -> None:
    path = fake(
        tmp_path, f"echo \"$@\" > {tmp_path}/asked; printf '{GOOD}'".replace("\n1", "\\n1").replace("\n'", "\\n'")
    )
    assert detected_gpus(path) == (FIRST, Gpu(index=1, name="NVIDIA A100, PCIe", memory=40960 * MIB))
    asked = (tmp_path / "asked").read_text()
    assert asked == "--query-gpu=index,name,memory.total,uuid --format=csv,noheader,nounits\n"


@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver'; exit 9",
        "echo 'No devices were found'; exit 6",
        "printf '\\377\\376\\000 garbage, x, y, z\\n'",
        "echo '0, [Unknown Error], [N/A], GPU-1'",
        "echo '-1, Tesla, 5, GPU-1'; echo '99999, Tesla, 5, GPU-1'; echo '1e3, Tesla, 5, GPU'",
        "kill -9 $$",
        "exit 0",
    ],
)
def test_what_fails_or_is_garbage_offers_nothing(tmp_path: Path, script: str) -> None:
    assert detected_gpus(fake(tmp_path, script)) == ()


def test_a_machine_without_it_has_none(tmp_path: Path) -> None:
    assert detected_gpus(str(tmp_path)) == ()
    (tmp_path / "nvidia-smi").write_text("not a program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert detected_gpus(str(tmp_path)) == ()


def test_one_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert detected_gpus(fake(tmp_path, f"echo '{GOOD}'; sleep 60 & sleep 60"), seconds=0.3) == ()
    assert time.monotonic() - began < 20


def test_a_line_that_is_garbage_hides_itself_alone() -> None:
    assert parse(f"warning: something, odd\n\n{GOOD.splitlines()[0]}\n0, again, 5, GPU-1\n") == (FIRST,)


def test_settings_choose_and_describe() -> None:
    there = {0: FIRST, 1: Gpu(index=1, name="T4", memory=MIB)}
    assert chosen(("1",), there) == (there[1],)
    assert chosen(("none",), there) == ()
    assert chosen(("7", "0"), there) == (FIRST,)
    assert chosen(("3=Radeon: Pro:16GB",), there) == (Gpu(index=3, name="Radeon: Pro", memory=16 * 10**9),)


@pytest.mark.parametrize("text", ["", "x", "-1", "0=", "0=T4", "0=:1GB", "9999", "0=a\nb:1GB", "all"])
def test_settings_that_make_no_sense(text: str) -> None:
    with pytest.raises(Invalid):
        read_setting(text)


def test_a_job_is_told_of_its_gpus_and_of_no_others() -> None:
    process, container = a_job(), a_job(image="x")
    assert environment(process, (0, 2)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2"}
    assert environment(process, ())["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(container, (0, 2)) == {"NVIDIA_VISIBLE_DEVICES": "0,2"}
    assert environment(container, ()) == {"NVIDIA_VISIBLE_DEVICES": "void"}


def wanting_one(name: str) -> Job:
    return a_job(name, resources=Resources(cpu=0.1, gpu=Gpus(count=1)))


def test_gpus_stay_with_their_jobs_when_the_runner_dies_at_any_moment(tmp_path: Path) -> None:
    """A job that was given the one comes back with it, and nobody else gets it."""
    two = tuple(Gpu(index=index, name="T4", memory=MIB) for index in (3, 5))
    for left in range(40):
        office = Office(tmp_path / str(left), capacity=Capacity(cpu=2.0, memory=2**33, gpus=two))
        office.settle()
        office.assign(*(given_job(wanting_one(name)) for name in ("a", "b", "c")))
        office.fuse.left = left
        try:
            office.settle(2.0)
        except Killed:
            office.fuse.left = None
            office.new_agent()
        office.fuse.left = None
        office.until(lambda office=office: len(office.executor.started) == 2)  # type: ignore[misc]
        office.settle(5.0)
        at_work = {one.key: one.gpus for one in office.agent.held.values() if one.phase is Phase.RUNNING}
        assert sorted(at_work.values()) == [(3,), (5,)]
        told = {key: launch.gpus for key, launch in office.executor.launches.items()}
        assert told == at_work
        assert all(
            launch.environment["CUDA_VISIBLE_DEVICES"] == str(launch.gpus[0])
            for launch in office.executor.launches.values()
        )


def test_gpus_stay_with_their_jobs_when_the_journal_is_lost(tmp_path: Path) -> None:
    """What runs is asked, not only the journal; what nobody holds any more gives its own back when it is removed."""
    three = tuple(Gpu(index=index, name="T4", memory=MIB) for index in (3, 5, 7))
    office = Office(tmp_path, capacity=Capacity(cpu=4.0, memory=2**33, gpus=three))
    office.settle()
    a, b, c = (given_job(wanting_one(name), order=name) for name in ("a", "b", "c"))
    office.assign(a, b, c)
    office.until(lambda: len(office.executor.started) == 3)
    before = {key: launch.gpus for key, launch in office.executor.launches.items()}
    assert sorted(before.values()) == [(3,), (5,), (7,)]
    office.agent.close()
    (tmp_path / "journal.json").unlink()
    # The first one is taken away meanwhile, and another comes before those that run.
    office.unassign(a.attempt.key)
    late = given_job(wanting_one("late"), order="a first")
    office.assign(late)
    office.new_agent()
    office.until(lambda: len(office.executor.started) == 4)
    office.settle(5.0)
    at_work = {one.key: one.gpus for one in office.agent.held.values() if one.phase is Phase.RUNNING}
    assert at_work == {late.attempt.key: before[a.attempt.key]} | {
        one.attempt.key: before[one.attempt.key] for one in (b, c)
    }
    assert office.executor.started.count(b.attempt.key) == 1


def test_a_process_and_a_container_tell_which_gpus_they_were_given(tmp_path: Path) -> None:
    executor = ProcessExecutor(lambda: None, instance=f"gpus{tmp_path.name}"[:60])
    given_two = replace(
        launch(tmp_path, "sleep 60", environment=environment(a_job(), (0, 2))), gpus=(0, 2), key="0123456789ab.1"
    )
    none = launch(tmp_path, "sleep 60", key="none.1", environment=environment(a_job(), ()))
    for one in (given_two, none):
        executor.start(one)
    for one in (given_two, none):
        wait_until(lambda one=one: not (one.folder / "order").exists())  # type: ignore[misc]
    executor.close()
    later = ProcessExecutor(lambda: None, instance=f"gpus{tmp_path.name}"[:60])
    assert later.gpus() == {given_two.key: (0, 2)}
    for one in (given_two, none):
        later.remove(one.key)
    assert later.gpus() == {}
    later.close()
    made = container(given_two, "name", "image", "instance")
    assert gpus_of(made.labels) == (0, 2)
    assert gpus_of(container(none, "name", "image", "instance").labels) == gpus_of({"dstack.gpus": "x,"}) == ()
