"""Measures logs under load: a real runner, its jobs and a reader, with the store in a real S3 server on this machine.

`python -m benchmarks.logs [big] [lines] [latency] [old] [quiet]`. It says which bounds don't hold.
"""

import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.attention import Attention
from cli.lines import JobLine
from cli.log_text import LogPrinter
from cli.tails import Tails
from dstack.model import keys
from dstack.model.job import Job, Resources, job_oid
from dstack.model.s3_place import parse_place
from dstack.store.lines import Line
from dstack.store.location import open_store
from dstack.store.log_reader import LogReader
from dstack.store.s3_client import client_of
from tests.daemons import REPOSITORY, Pool
from tests.duties import a_job
from tests.job_lines import running
from tests.s3_server import S3Server

RUNNER_MIB = READER_MIB = 150
WORST_SECONDS = 1.5
BIG = 100 * 1000 * 1000
STAMPED = 60
OLD_SECONDS, OLD_LINES = 150, 1800
JOBS, RATE, SECONDS = 4, 10_000, 20
LINE = "import sys\nfor n in range({count}):\n    sys.stdout.write(f'{{n:09}} ' + 'x' * 89 + '\\n')\n"
PACED = """
import os, time
begin = time.monotonic()
for n in range({seconds} * 100):
    for m in range({rate} // 100):
        os.write(1, b'%09d step: loss 0.123456, accuracy 0.9876\\n' % (n * ({rate} // 100) + m))
    time.sleep(max(0, begin + (n + 1) / 100 - time.monotonic()))
"""
STAMPS = """
import time
for n in range({count}):
    time.sleep({pause} + n % 7 / 30)
    print('at', repr(time.time()), flush=True)
"""


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


def big(server: S3Server, folder: Path) -> bool:
    """100 MB of one job as fast as it can, then read by another process."""
    one = job(LINE.format(count=BIG // 100), "big")
    with pool(server, folder) as (made, pid):
        begin = time.perf_counter()
        made.assign(one)
        made.claim(one, 120)
        seconds, used = time.perf_counter() - begin, memory(pid)
        expected = hashlib.sha256()
        for number in range(BIG // 100):
            expected.update(b"%09d %s\n" % (number, b"x" * 89))
        whole = digest(made, one) == (BIG, expected.hexdigest())
        print(
            f"100 MB of one job: {seconds:.1f} s to its end, {BIG / 1e6 / seconds:.0f} MB/s, whole: {whole}, ", end=""
        )
        print(f"{len(list(made.store.list(log_key(made, one) + '/')))} objects, runner {used:.0f} MiB")
        return whole and used < RUNNER_MIB and _read(made, one)


def _read(made: Pool, one: Job) -> bool:
    """As `dstack logs` does."""
    program = (
        "import sys, time\nfrom tests.job_lines import running\nfrom cli.log_text import LogPrinter\n"
        "from cli.logs import all_lines\n"
        "from dstack.store.location import open_store\n"
        "store = open_store(sys.argv[1], sys.argv[2], create=False)\n"
        "begin = time.perf_counter()\n"
        "job = running(sys.argv[3], 'big')\n"
        "LogPrinter().lines(job, all_lines(store, job))\n"
        "print(time.perf_counter() - begin, file=sys.stderr)\n"
    )
    argv = [sys.executable, "-c", program, made.url, REPOSITORY, log_key(made, one)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        size = 0
        while process.stdout and (data := process.stdout.read(1 << 20)):
            size += len(data)
        told = process.stderr.read().decode() if process.stderr else ""
        _, _, usage = os.wait4(process.pid, 0)
    used = usage.ru_maxrss / 1024
    print(f"read: {size} bytes, {size / 1e6 / float(told.split()[-1]):.0f} MB/s, reader {used:.0f} MiB")
    return size == BIG and used < READER_MIB


def lines(server: S3Server, folder: Path) -> bool:
    """Four jobs at once, 10,000 lines a second each, one write a line."""
    program = PACED.format(seconds=SECONDS, rate=RATE)
    jobs = [job(program, f"lines-{number}") for number in range(JOBS)]
    expected = b"".join(b"%09d step: loss 0.123456, accuracy 0.9876\n" % number for number in range(RATE * SECONDS))
    with pool(server, folder) as (made, pid):
        begin = time.perf_counter()
        made.assign(*jobs)
        before = _cpu(pid)
        for one in jobs:
            made.claim(one, 180)
        seconds, used, busy = time.perf_counter() - begin, memory(pid), _cpu(pid) - before
        whole = all(digest(made, one) == (len(expected), hashlib.sha256(expected).hexdigest()) for one in jobs)
        count = sum(len(list(made.store.list(log_key(made, one) + "/"))) for one in jobs)
        what = f"{JOBS} jobs, {RATE} lines a second each, for {SECONDS} s"
        print(f"{what}: {seconds:.1f} s to the last end, whole: {whole}, ", end="")
        print(f"{count} objects, runner {used:.0f} MiB, {busy:.1f} s of processor time")
        return whole and used < RUNNER_MIB


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clocked(LogPrinter):
    """Notes how late each line is."""

    def lines(self, _job: JobLine, lines: Iterable[Line]) -> None:
        """From the process's own clock to here."""
        LATE.extend(time.time() - float(line.data[3:]) for line in lines if line.data.startswith(b"at "))


LATE: list[float] = []


def latency(server: S3Server, folder: Path) -> bool:
    """From a job's write to what `logs -f` prints."""
    one = job(STAMPS.format(count=STAMPED, pause=0.3), "late")
    with pool(server, folder) as (made, _):
        made.assign(one)
        tails = Tails(printer=Clocked())
        key = log_key(made, one)
        requests = counted(made)
        tails.open(running(key, "late"), key, made.store)
        begin = time.monotonic()
        while len(LATE) < STAMPED and time.monotonic() < begin + 90:
            tails.show()
            time.sleep(0.01)
        seconds = time.monotonic() - begin
        print(
            f"{len(LATE)} lines shown after {statistics.median(LATE):.2f} s, at the latest {max(LATE):.2f} s; ", end=""
        )
        print(f"the reader made {60 * requests[0] / seconds:.0f} requests a minute, ", end="")
        print(f"the runner {60 * len(list(made.store.list(key + '/'))) / seconds:.0f}")
        return len(LATE) == STAMPED and max(LATE) < WORST_SECONDS


def old(server: S3Server, folder: Path) -> bool:
    """The same of a job that has been writing for minutes: to a reader without a sign, and to one who gives it."""
    one = job(STAMPS.format(count=OLD_LINES, pause=0.05), "old")
    with pool(server, folder) as (made, _):
        made.assign(one)
        time.sleep(OLD_SECONDS)
        tails, key = Tails(printer=Clocked()), log_key(made, one)
        tails.open(running(key, "old"), key, made.store)
        _shown(tails, 5)
        LATE.clear()
        print(f"written for {OLD_SECONDS} s, no sign: {_told(made, key, tails, 40)}")
        attention, begin = Attention(made.key), len(LATE)
        attention.show(made.store)
        try:
            _shown(tails, 5)
            print(f"in the first 5 s of a sign: at the latest {max(LATE[begin:]):.2f} s")
            LATE.clear()
            print(f"from then on: {_told(made, key, tails, 60)}")
        finally:
            attention.end(over=True)
        return max(LATE) < WORST_SECONDS


def _shown(tails: Tails, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tails.show()
        time.sleep(0.01)


def _told(made: Pool, key: str, tails: Tails, seconds: int) -> str:
    before = len(list(made.store.list(key + "/")))
    _shown(tails, seconds)
    pieces = len(list(made.store.list(key + "/"))) - before
    times = f"{len(LATE)} lines shown after {statistics.median(LATE):.2f} s, at the latest {max(LATE):.2f} s"
    return f"{times}; {60 * pieces / seconds:.0f} pieces a minute"


def counted(made: Pool) -> list[int]:
    """Counts the requests of this process's client from now on."""
    count = [0]

    def note(**_: object) -> None:
        count[0] += 1

    client, _ = client_of(parse_place(made.store.url))
    client.meta.events.register("before-send.s3", note)
    return count


def quiet(server: S3Server, folder: Path) -> bool:
    """What a runner writes in half a minute in which its job says nothing: signs of life."""
    one = job("import time; print(1, flush=True); time.sleep(45)", "quiet")
    with pool(server, folder) as (made, _):
        made.assign(one)
        time.sleep(5)
        tails, requests = Tails(printer=LogPrinter()), counted(made)
        key = log_key(made, one)
        tails.open(running(key, "quiet"), key, made.store)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            tails.show()
            time.sleep(0.01)
        chunks = len(list(made.store.list(log_key(made, one) + "/")))
        print(f"a quiet job: {chunks} objects of log; who follows it made {2 * requests[0]} requests a minute")
        return True


MEASURES: dict[str, Callable[[S3Server, Path], bool]] = {
    "big": big,
    "lines": lines,
    "latency": latency,
    "old": old,
    "quiet": quiet,
}


def main() -> None:
    """Measure what is named, or all."""
    folder = Path(tempfile.mkdtemp(prefix="dstack-logs-"))
    server = S3Server(folder / "server")
    os.environ.update({**server.environment, "GIT_CONFIG_GLOBAL": os.devnull})
    for role in ("AUTHOR", "COMMITTER"):
        os.environ.update({f"GIT_{role}_NAME": "bench", f"GIT_{role}_EMAIL": "bench@example.org"})
    try:
        server.start()
        failed = []
        for name in sys.argv[1:] or MEASURES:
            (folder / name).mkdir()
            if not MEASURES[name](server, folder / name):
                failed.append(name)
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(f"not held: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
