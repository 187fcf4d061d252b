"""What a team has, all of it real: a git server over http or ssh, S3, and a runner on a machine of its own."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.docker_engine import DockerEngine
from tests.git_servers import PASSWORD
from tests.installed import ROOT
from tests.s3_server import SECRET, S3Server, objects
from tests.team import Team, team
from tests.test_pool import IN_DOCKER
from tests.watching import watched_processes

# Seconds; `AWAY=120 pytest tests/test_team.py` does it as long as outages are, and each of them by itself, too.
AWAY = float(os.environ.get("AWAY", "3"))
LONG = 30
# A runner that is cut off for a lease is lost, and its jobs are tried again.
LEASE = max(60, 3 * AWAY)
# From the return to the end of the run: what was left of the job, its upload and the second job are in it.
SOON = 30
pytestmark = [pytest.mark.machines, pytest.mark.timeout(180 + 10 * AWAY)]

COUNT = """\
workflows:
- name: count
  commands:
  - i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.1; done
  - mkdir out; head -c 20000000 /dev/urandom > out/large; sha256sum < out/large
  artifacts: [out]
- {name: check, depends-on: [count], commands: [sha256sum < out/large]}
- {name: quick, commands: [echo line 60; mkdir out; date > out/x], artifacts: [out]}
"""


def files_of(folder: Path) -> dict[str, str]:
    """Digests of all files, by path below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_digits_give_the_same_figures_as_on_one_machine(tmp_path: Path, s3: S3Server) -> None:
    with team(tmp_path, ROOT / "examples" / "digits", s3, "http") as at:
        at.configure_runner("otter", "--executor", "process", "--cpu", "2")
        at.start_controller()
        at.start_runner("otter")
        at.dstack("run", "evaluate", "--name", "far")
        at.dstack("artifacts", "far", "--output", str(tmp_path / "far"))
        near_by = tmp_path / "near-by"
        at.run("git", "clone", "--quiet", str(at.code), str(near_by))
        at.run("git", "-C", str(near_by), "config", "dstack.remote", ".")
        at.run("dstack", "-C", str(near_by), "run", "evaluate", "--local", "--name", "near")
        at.run("dstack", "-C", str(near_by), "artifacts", "near", "--output", str(tmp_path / "near"))
        far, near = files_of(tmp_path / "far"), files_of(tmp_path / "near")
        assert set(far) == set(near)
        same = [path for path in far if far[path] == near[path]]
        assert "reports/metrics.json" in same, (far, near)
        assert json.loads((tmp_path / "far/reports/metrics.json").read_text())["accuracy"] > 0.98
        assert [one["status"] for one in at.json("status", "far")[0]["jobs"]] == ["DONE"] * 3


@pytest.mark.docker
@pytest.mark.sshd
def test_a_docker_chain_over_ssh(tmp_path: Path, s3: S3Server, docker_engine: DockerEngine) -> None:
    docker_engine.busybox()
    with team(tmp_path, IN_DOCKER, s3, "ssh", DOCKER_HOST=docker_engine.url) as at:
        at.configure_runner("otter", "--executor", "docker", "--cpu", "2")
        at.start_controller()
        at.start_runner("otter")
        at.dstack("run", "train", "--name", "far")
        assert "result" in at.dstack("logs", "far")
        at.dstack("artifacts", "far", "--output", str(tmp_path / "far"))
        assert (tmp_path / "far/out/x").read_text() == "result\n"


PLANTED = (PASSWORD, quote(PASSWORD, safe=""), SECRET)


@pytest.fixture
def at(tmp_path: Path, s3: S3Server) -> Iterator[Team]:
    with team(tmp_path, COUNT, s3, "http") as made:
        made.share(f"lease: {LEASE:g}")
        made.configure_runner("otter", "--executor", "process", "--cpu", "2")
        made.start_controller()
        made.start_runner("otter")
        yield made


def begun(at: Team) -> None:
    at.dstack("run", "check", "-d", "--name", "far")
    at.eventually(lambda: "line 5" in at.dstack("logs", "far"))


def ends_well(at: Team) -> None:
    """DONE, each job once, nothing of the log lost, the same bytes on both sides."""
    assert at.status("far") == "DONE"
    assert "line 60" in at.dstack("logs", "far")
    assert set(at.history("far").values()) == {(1, 1)}, f"{at.history('far')}\n{at.logs()}"
    lines = [line.partition("| ")[2] for line in at.dstack("logs", "far").splitlines()]
    assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(1, 61)]
    sums = [line for line in lines if line.endswith("  -")]
    assert len(sums) == 2
    assert len(set(sums)) == 1


def every_trouble(at: Team) -> None:
    at.s3_wire.rate = 4_000_000
    at.s3_wire.break_after = at.s3_wire.upstream + 9_000_000  # in the middle of the upload, whenever that is
    for _ in range(2):
        at.git_wire.break_after = at.git_wire.upstream + 900  # in the middle of a push
        time.sleep(1)
    at.git_wire.break_after = None
    cable_in_the_job(at)
    server(at)
    store(at)
    at.eventually(lambda: at.s3_wire.break_after is None)
    at.s3_wire.cut()
    time.sleep(AWAY)
    at.s3_wire.rate = None
    at.s3_wire.heal()


def server(at: Team) -> None:
    at.server.stop()
    time.sleep(AWAY)
    at.server.start()


def store(at: Team) -> None:
    at.s3.stop()
    time.sleep(AWAY)
    at.s3.start()


def store_in_the_upload(at: Team) -> None:
    uploading(at)
    store(at)


def cable_in_the_job(at: Team) -> None:
    at.machine.cut()
    time.sleep(AWAY)
    at.machine.heal()


def cable_in_the_upload(at: Team) -> None:
    uploading(at)
    cable_in_the_job(at)


def cable_in_a_push(at: Team) -> None:
    at.git_wire.rate = 4_000
    before, asked = at.git_wire.upstream, at.server.pushes()  # type: ignore[union-attr]
    at.eventually(lambda: at.server.pushes() > asked or at.git_wire.upstream > before + 2_000)  # type: ignore[union-attr]
    cable_in_the_job(at)
    at.git_wire.rate = None


def uploading(at: Team) -> None:
    before, at.s3_wire.rate = at.s3_wire.upstream, 2_000_000
    at.eventually(lambda: at.s3_wire.upstream > before + 6_000_000)


# Short ones are looked at all in one.
ALONE = (server, store_in_the_upload, cable_in_the_job, cable_in_the_upload, cable_in_a_push) if AWAY >= LONG else ()
TROUBLES = (every_trouble, *ALONE)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_run_ends_well_and_soon_after_trouble(at: Team, trouble: Callable[[Team], None]) -> None:
    begun(at)
    trouble(at)
    at.s3_wire.rate = at.git_wire.rate = None
    back = time.monotonic()
    at.eventually(lambda: at.view("far").state.finished is not None, 120)
    assert time.monotonic() - back < SOON, at.logs()
    ends_well(at)


NOSY = """\
workflows:
- {name: nosy, commands: [env, cat /proc/self/environ, 'sleep 2; mkdir out; env > out/all'], artifacts: [out]}
"""


def test_passwords_and_keys_are_nowhere(tmp_path: Path, s3: S3Server) -> None:
    with team(tmp_path, NOSY, s3, "http") as at:
        at.configure_runner("otter", "--executor", "process")  # the one who types it shows the password
        with watched_processes() as seen:
            at.start_controller()
            at.start_runner("otter")
            at.dstack("run", "nosy", "--name", "far")
            at.dstack("status", "--json")
        told = at.dstack("logs", "far") + at.dstack("doctor", expect=None) + at.logs()
        found = {"commands and daemons": told.encode(), "process list": b"\n".join(seen)}
        for folder in (at.remote, at.code):
            objects_ = at.run("git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch")
            found[folder.name] = objects_.encode()
        client = s3.client()
        for key in objects(s3, at.bucket):
            found[key] = client.get_object(Bucket=at.bucket, Key=key)["Body"].read()
        for path in at.folder.rglob("*"):
            if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o600:
                found[str(path)] = path.read_bytes()
        assert any(b"git" in line for line in seen)
        assert [
            (name, planted) for name, data in found.items() for planted in PLANTED if planted.encode() in data
        ] == []


def test_everything_goes_on_from_copies(at: Team, tmp_path: Path) -> None:
    at.dstack("run", "quick", "--name", "far")
    at.end()
    at.daemons.clear()
    client, copy = at.s3.client(), at.s3.bucket()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=at.bucket)
    for key in [one["Key"] for page in pages for one in page.get("Contents", [])]:
        client.copy_object(Bucket=copy, Key=key, CopySource={"Bucket": at.bucket, "Key": key})
        client.delete_object(Bucket=at.bucket, Key=key)
    at.run("git", "clone", "--quiet", "--mirror", str(at.remote), str(tmp_path / "copy.git"))
    at.remote.rename(tmp_path / "old.git")
    (tmp_path / "copy.git").rename(at.remote)
    at.dstack("init", "--store", f"s3://{copy}/team", "--endpoint-url", at.endpoint, "--copied")
    at.configure_runner("otter")
    at.start_controller()
    at.start_runner("otter")
    at.dstack("run", "quick", "--name", "again")
    assert at.status("far") == "DONE"
    assert "line 60" in at.dstack("logs", "far")
