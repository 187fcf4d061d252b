"""A real runner on a real remote: it does its work, and `kill -9` at any moment neither loses nor doubles anything."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from dstack.model.job import Job, Reason
from dstack.model.pool import RunnerState
from dstack.model.status import Status
from tests.daemons import NAME, Pool, kill, wait_until
from tests.duties import a_job

COUNT = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
LINES = "".join(f"line {number}\n" for number in range(1, 21)).encode()


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


def ended_well(pool: Pool, job: Job, output: bytes) -> None:
    claim = pool.claim(job)
    assert (claim.status, claim.exit_code) == (Status.DONE, 0), claim
    assert claim.manifest is not None
    assert pool.log(job) == (output, True)
    time.sleep(0.3)
    assert len(pool.claims(job)) == 1
    assert [event.seq for event in pool.events(job)] == list(range(1, len(pool.events(job)) + 1))


def test_a_job_from_assignment_to_claim(pool: Pool) -> None:
    job = a_job(commands=("echo hello $DSTACK_ATTEMPT; cat train.py; echo x > out",))
    with pool.runner() as runner:
        pool.assign(job)
        ended_well(pool, job, b"hello 1\nprint('hello')\n")
        pool.unassign(job)
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(10) == 0
    assert pool.ledger.observe().runners[NAME].state is RunnerState.GONE
    assert list((pool.state / "attempts").iterdir()) == []


@pytest.mark.parametrize("milliseconds", [5, 30, 55, 80, 110, 150, 300, 700])
def test_killed_while_it_prepares_runs_or_reports(pool: Pool, milliseconds: int) -> None:
    job = a_job(commands=("echo once >> $HOME/times", COUNT, "echo x > out"))
    with pool.runner() as runner:
        pool.assign(job)
        time.sleep(milliseconds / 1000)
        kill(runner)
    with pool.runner():
        ended_well(pool, job, LINES)
    times = Path.home() / "times"
    assert times.read_text() == "once\n"


def test_killed_again_and_again(pool: Pool) -> None:
    jobs = [a_job(f"w{number}", commands=(f"echo {number}; echo x > out",)) for number in range(6)]
    with pool.runner() as runner:
        pool.assign(*jobs)
        time.sleep(0.1)
        kill(runner)
    for seconds in (0.02, 0.05, 0.1, 0.15):
        with pool.runner() as runner:
            time.sleep(seconds)
            kill(runner)
    with pool.runner():
        for number, job in enumerate(jobs):
            ended_well(pool, job, f"{number}\n".encode())


def test_killed_while_it_saves_artifacts(pool: Pool) -> None:
    job = a_job(commands=("mkdir out", "for i in 1 2 3 4 5 6 7 8; do head -c 8000000 /dev/urandom > out/$i; done"))
    objects = pool.folder / "store" / "repo-12345678" / "objects"
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: objects.is_dir() and any(objects.iterdir()))
        kill(runner)
    assert pool.claims(job) == []
    with pool.runner():
        ended_well(pool, job, b"")
    assert pool.claim(job).artifacts_size == 64_000_000


def test_unassigned_while_the_runner_was_dead_is_killed_and_not_told(pool: Pool) -> None:
    job = a_job(commands=("trap '' TERM; echo $$ > $HOME/pid; sleep 60",))
    pid = Path.home() / "pid"
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: pid.exists() and pid.read_text() != "")
        kill(runner)
    assert (Path("/proc") / pid.read_text().strip()).exists()
    pool.unassign(job)
    with pool.runner():
        wait_until(lambda: not (Path("/proc") / pid.read_text().strip()).exists())
        wait_until(lambda: list((pool.state / "attempts").iterdir()) == [])
    assert pool.claims(job) == []


def test_a_job_whose_wrapper_was_killed_too_is_lost(pool: Pool) -> None:
    job = a_job(commands=("sleep 60",))
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: bool(pool.events(job)))
        kill(runner)
    for shim in (pool.state / "attempts").glob("*/shim.json"):
        os.kill(json.loads(shim.read_text())["pid"], signal.SIGKILL)
    with pool.runner():
        claim = pool.claim(job)
    assert (claim.status, claim.reason) == (Status.FAILED, Reason.LOST)


def test_a_second_daemon_on_the_folder_refuses(pool: Pool) -> None:
    with pool.runner() as runner:
        with pytest.raises(AssertionError, match="a runner works with"), pool.runner():
            pass
        assert runner.poll() is None


def test_a_runner_is_not_renamed_while_it_has_attempts_in_hand(pool: Pool) -> None:
    job = a_job(commands=(COUNT, "echo x > out"))
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: bool(pool.events(job)))
        time.sleep(0.6)
        kill(runner)
    with pytest.raises(AssertionError, match="in hand as quick-owl"), pool.runner("sly-fox"):
        pass
    with pool.runner():
        ended_well(pool, job, LINES)


def test_what_runs_is_looked_after_while_the_remote_is_away(pool: Pool) -> None:
    job = a_job(commands=(COUNT, "echo x > out"))
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: bool(pool.events(job)))
        time.sleep(0.6)
        kill(runner)
    away = pool.remote.rename(pool.remote.with_name("away.git"))
    with pool.runner(registered=False):
        wait_until(lambda: pool.log(job)[1])
        away.rename(pool.remote)
        ended_well(pool, job, LINES)


def test_a_runner_that_is_ended_leaves_its_jobs_to_the_next(pool: Pool) -> None:
    job = a_job(commands=(COUNT, "echo x > out"))
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: bool(pool.events(job)))
        runner.send_signal(signal.SIGINT)
        assert runner.wait(10) == 0
    assert pool.ledger.observe().runners[NAME].state is RunnerState.LIVE
    with pool.runner():
        ended_well(pool, job, LINES)


def test_a_stop_ends_every_process_and_keeps_what_was_made(pool: Pool) -> None:
    job = a_job(commands=("echo x > out; trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.1; done",))
    with pool.runner():
        pool.assign(job)
        wait_until(lambda: b"ready" in pool.log(job)[0])
        pool.stop(job)
        claim = pool.claim(job)
    assert (claim.status, claim.reason) == (Status.STOPPED, Reason.STOPPED)
    assert claim.manifest is not None
    lines = pool.log(job)[0].splitlines()
    # The shell may say that its child, which was told as well, is gone.
    assert [line for line in lines if line != b"Terminated"][:2] == [b"ready", b"stopping"]
