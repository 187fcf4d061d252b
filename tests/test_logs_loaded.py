"""Logs under load, by a real runner over a real S3 server: what is much, quick, odd or interrupted is all there."""

import re
import sys
import time
from pathlib import Path

import pytest

from dstack.model import keys
from dstack.model.job import Job, Resources, job_oid
from dstack.model.status import Status
from dstack.store.location import open_store
from tests.daemons import REPOSITORY, Pool, kill, wait_until
from tests.duties import a_job
from tests.s3_server import S3Server

RUNNER_MIB = 150
# Mostly one write a line, at a steady pace; then what logs are not made for, and a child that goes on by itself.
PACED = """
import os, time
begin = time.monotonic()
for n in range(200):
    for m in range(100):
        os.write(1, b"%06d loss 0.123456\\n" % (n * 100 + m))
    time.sleep(max(0, begin + (n + 1) / 100 - time.monotonic()))
"""
PACED_LINES = b"".join(b"%06d loss 0.123456\n" % number for number in range(20_000))
ODD = """
import os, sys
for n in range(2000):
    os.write(1, b"\\r%d%%" % n)
    os.write(2, bytes(range(256)) * 4)
sys.stdout.buffer.write(b"x" * 12_000_000)
"""
ODD_SIZE = sum(len(b"\r%d%%" % number) for number in range(2000)) + 2000 * 1024 + 12_000_000


@pytest.fixture
def pool(tmp_path: Path, s3: S3Server) -> Pool:
    made = Pool(tmp_path)
    made.url = s3.url()
    made.store = open_store(made.url, REPOSITORY, create=True)
    return made


def python(program: str, name: str, folder: Path) -> Job:
    file = folder / f"{name}.py"
    file.write_text(program)
    return a_job(name, commands=(f"{sys.executable} {file}",), artifacts=(), resources=Resources(cpu=0.25))


def most_memory(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def test_four_jobs_of_ten_thousand_lines_a_second_lose_none(pool: Pool, tmp_path: Path) -> None:
    jobs = [python(PACED, f"paced-{number}", tmp_path) for number in range(4)]
    odd = python(ODD, "odd", tmp_path)
    with pool.runner() as runner:
        pool.assign(*jobs, odd)
        for job in (*jobs, odd):
            assert pool.claim(job, 60).status is Status.DONE
        assert most_memory(runner.pid) < RUNNER_MIB
    for job in jobs:
        assert pool.log(job) == (PACED_LINES, True)
    data, closed = pool.log(odd)
    assert closed
    assert len(data) == ODD_SIZE
    assert b"x" * 12_000_000 in data.replace(bytes(range(256)), b"")


def test_a_server_that_is_away_and_a_runner_that_is_killed_cost_no_line(
    pool: Pool, tmp_path: Path, s3: S3Server
) -> None:
    job = python(PACED, "paced", tmp_path)
    chunks = f"{keys.log(str(pool.key), job_oid(job), 1)}/"
    with pool.runner() as runner:
        pool.assign(job)
        wait_until(lambda: len(list(pool.store.list(chunks))) > 0)
        s3.stop()
        try:
            time.sleep(1)
            kill(runner)
        finally:
            s3.start()
    with pool.runner():
        assert pool.claim(job, 60).status is Status.DONE
    assert pool.log(job) == (PACED_LINES, True)
    sizes = [head.size for head in pool.store.list(chunks)]
    assert len(sizes) < 15
