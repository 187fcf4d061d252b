"""What `dstack doctor` finds about Docker."""

import json
import socket
from pathlib import Path

import pytest

from cli import docker_checks as checks
from cli.checks import Check, Result
from runner import limit_probe, limits
from runner.engine import Engine
from tests.docker_engine import DockerEngine


def found(monkeypatch: pytest.MonkeyPatch, url: str) -> list[Check]:
    monkeypatch.setenv("DOCKER_HOST", url)
    return list(checks.docker_checks())


@pytest.mark.docker
def test_a_good_engine_is_found_good(docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [check.text for check in found(monkeypatch, docker_engine.url)]
    assert any(text.startswith("Docker ") and text.endswith(" answers") for text in texts)
    assert "limits on cpu, memory, pids and shm-size take effect" in texts


@pytest.mark.docker
def test_limits_that_have_no_effect_are_seen(docker_engine: DockerEngine) -> None:
    engine = Engine(docker_engine.url)
    assert limit_probe.without_effect(engine, "probe1") == ()
    names = limit_probe.without_effect(engine, "probe2", cpu=None, memory=None, shm_size=None)
    assert names == ("memory", "cpu", "shm-size")
    # By name: tests of other workers probe the same engine.
    assert [name for name in ("probe1", "probe2") if engine.state(f"dstack-{name}-probe")] == []
    engine.close()


V2 = "memory.max 67108864\ncpu.max 50000 100000\npids.max 16384\nshm shm 16384 0 16384 0% /dev/shm\n"
V1 = (
    "memory/memory.limit_in_bytes 67108864\ncpu/cpu.cfs_quota_us 50000\npids/pids.max 16384\n"
    "shm shm 16384 0 16384 0% /dev/shm\n"
)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (V2, ()),
        (V1, ()),
        ("", ("memory", "cpu", "pids", "shm-size")),
        (V2.replace("67108864", "max"), ("memory",)),
        (V2.replace("50000 100000", "max 100000"), ("cpu",)),
        (V1.replace("50000", "-1"), ("cpu",)),
        (V1.replace("limit_in_bytes 67108864", "limit_in_bytes 9223372036854771712"), ("memory",)),
        (V2.replace("pids.max 16384", "pids.max max"), ("pids",)),
        (V2.replace("shm shm 16384", "shm shm 65536"), ("shm-size",)),
    ],
)
def test_the_answer_of_either_kind_of_control_group_is_read(answer: str, names: tuple[str, ...]) -> None:
    assert limits.without_effect(answer, 16384) == names


def test_an_engine_that_does_not_answer_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.docker_ping.SECONDS", 0.2)
    place = tmp_path / "sock"
    (absent,) = found(monkeypatch, f"unix://{place}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        (refused,) = found(monkeypatch, f"unix://{place}")
        listener.listen()
        (hangs,) = found(monkeypatch, f"unix://{place}")
    assert "install Docker, start it, or set DOCKER_HOST" in absent.text
    assert "is not running" in refused.text
    assert "hangs" in hangs.text
    assert {absent.result, refused.result, hangs.result} == {Result.ODD}
    assert "usermod -aG docker" in checks.trouble(PermissionError())


def test_an_old_engine_and_a_missing_helper_are_named(tmp_path: Path) -> None:
    assert "too old" in checks.version_check({"Version": "18.09", "ApiVersion": "1.39"}).text
    assert checks.version_check({"Version": "28.2", "ApiVersion": "1.50"}).result is Result.GOOD
    config = tmp_path / "config.json"
    assert list(checks.login_checks(config)) == []
    config.write_text(json.dumps({"credsStore": "nowhere", "credHelpers": {"r.example.org": "gone", "x": 3}}))
    assert [check.text.split()[5] for check in checks.login_checks(config)] == [
        "docker-credential-gone,",
        "docker-credential-nowhere,",
    ]
    config.write_text("{")
    assert "can't be read" in next(checks.login_checks(config)).text


def test_a_disk_nearly_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = checks.room_check(str(tmp_path))
    assert "GB are free" in check.text
    assert list(checks.room_check(str(tmp_path / "not" / "here"))) == []
    monkeypatch.setattr(checks, "LOW_BYTES", 2**80)
    monkeypatch.setattr(checks, "LOW_SHARE", 1.1)
    (check,) = checks.room_check(str(tmp_path))
    assert check.result is Result.ODD
    assert "free some space" in check.text
