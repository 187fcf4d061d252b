"""A runner's own settings, what it finds out about its machine, and who may use its state folder."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from dstack.model.errors import Failed, Invalid
from dstack.model.refs import is_name
from runner.config import FILE, RunnerConfig, new_config, read_config, state_folder, write_config
from runner.journal import instance_of
from runner.machine import detected
from runner.statefolder import locked
from runner.trust import Trust


def test_settings_are_read_as_written_by_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "runner"
    assert read_config(folder) is None
    config = RunnerConfig(name="quick-owl", remote="/srv/state.git", labels=("gpu", "big"), cpu=1.5, memory=2**30)
    write_config(folder, config)
    assert read_config(folder) == config
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert (config.capacity.cpu, config.capacity.memory) == (1.5, 2**30)


def test_a_new_runner_has_a_name_docker_alone_and_what_the_machine_has() -> None:
    config = new_config()
    assert is_name(config.name)
    assert config.executors == ("docker",)
    assert config.capacity == detected()
    assert {new_config().name for _ in range(20)} != {config.name}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "Quick Owl"}, "can't name a runner"),
        ({"name": "controller"}, "controller"),
        ({"executors": ("podman",)}, "docker or process"),
        ({"executors": ()}, "without an executor"),
        ({"labels": ("a\nb",)}, "label"),
        ({"labels": (" a",)}, "label"),
        ({"labels": ("",)}, "label"),
        ({"cpu": 0.0}, "above 0"),
        ({"cpu": float("nan")}, "above 0"),
        ({"memory": -1}, "above 0"),
        ({"volumes": {"a/b": "/srv"}}, "name of a volume"),
        ({"volumes": {"data": "srv"}}, "no absolute path"),
        ({"trust": Trust(signed=True)}, "signers are missing"),
        ({"trust": Trust(signers="signers")}, "no absolute path"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        write_config(tmp_path, msgspec.structs.replace(RunnerConfig(name="quick-owl"), **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": 3}', b'{"name": "a", "colour": "red"}', b"\xff" * 10])
def test_a_damaged_file_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(Invalid, match=FILE):
        read_config(tmp_path)


def test_the_state_folder_follows_xdg() -> None:
    assert state_folder({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/dstack/runner")
    assert state_folder({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/dstack/runner")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/dstack/runner")


MEMINFO = "MemFree: 5 kB\nMemTotal:       16000000 kB\n"


@pytest.mark.parametrize(
    ("files", "cpu", "memory"),
    [
        ({}, None, 16_384_000_000),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, 16_384_000_000),
        ({"cpu.max": "50000 100000\n", "memory.max": "1073741824\n"}, 0.5, 2**30),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25, 16_384_000_000),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, 16_384_000_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None, 16_384_000_000),
        ({"cpu.max": "garbage", "memory.max": "garbage"}, None, 16_384_000_000),
    ],
)
def test_limits_of_the_control_group_count(
    tmp_path: Path, files: dict[str, str], cpu: float | None, memory: int
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    capacity = detected(tmp_path, tmp_path / "meminfo")
    assert capacity.memory == memory
    assert capacity.cpu == (len(os.sched_getaffinity(0)) if cpu is None else cpu)


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with locked(folder), pytest.raises(Failed, match="a runner works with"), locked(folder):
        pass
    with locked(folder):
        pass


def test_an_instance_is_made_once(tmp_path: Path) -> None:
    instance = instance_of(tmp_path)
    assert instance_of(tmp_path) == instance
    (tmp_path / "instance").write_text("")
    with pytest.raises(Failed, match="is damaged"):
        instance_of(tmp_path)
