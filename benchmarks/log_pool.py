"""What benchmarks of logs measure with: a runner in a process of its own, and jobs that are programs."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.model import keys
from dstack.model.job import Job, Resources, job_oid
from dstack.store.location import open_store
from dstack.store.log_reader import LogReader
from tests.daemons import REPOSITORY, Pool
from tests.duties import a_job
from tests.s3_server import S3Server


def job(program: str, name: str) -> Job:
    """A job that runs a Python program."""
    script = f"{sys.executable} -c '{program.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'"
    return a_job(name, commands=(script,), artifacts=(), resources=Resources(cpu=0.25))


def memory(pid: int) -> float:
    """The most that a process has had in memory, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def pool(server: S3Server, folder: Path) -> Iterator[tuple[Pool, int]]:
    """A pool with one runner, whose store is a new bucket; and the runner's process id."""
    made = Pool(folder)
    made.url = server.url()
    made.store = open_store(made.url, REPOSITORY, create=True)
    with made.runner() as process:
        yield made, process.pid


def log_key(made: Pool, one: Job) -> str:
    """Where the log of a job's first attempt is."""
    return keys.log(str(made.key), job_oid(one), 1)


def digest(made: Pool, one: Job) -> tuple[int, str]:
    """Length and digest of a log, read in pieces."""
    reader, found, size = LogReader(made.store, log_key(made, one)), hashlib.sha256(), 0
    while not reader.closed:
        for record in reader.poll(whole=True).records:
            found.update(record.data)
            size += len(record.data)
    return size, found.hexdigest()


def processor_time(pid: int) -> float:
    """Seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
