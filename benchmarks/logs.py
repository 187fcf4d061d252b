"""Measures logs under load: a real runner, its jobs and a reader, with the store in a real S3 server on this machine.

`python -m benchmarks.logs [big] [lines] [latency] [old] [quiet]`. It says which bounds don't hold.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.log_delay import latency, old, quiet
from benchmarks.log_pool import digest, job, log_key, memory, pool, processor_time
from dstack.model.job import Job
from tests.daemons import REPOSITORY, Pool
from tests.s3_server import S3Server

RUNNER_MIB = READER_MIB = 150
BIG = 100 * 1000 * 1000
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
        before = processor_time(pid)
        for one in jobs:
            made.claim(one, 180)
        seconds, used, busy = time.perf_counter() - begin, memory(pid), processor_time(pid) - before
        whole = all(digest(made, one) == (len(expected), hashlib.sha256(expected).hexdigest()) for one in jobs)
        count = sum(len(list(made.store.list(log_key(made, one) + "/"))) for one in jobs)
        what = f"{JOBS} jobs, {RATE} lines a second each, for {SECONDS} s"
        print(f"{what}: {seconds:.1f} s to the last end, whole: {whole}, ", end="")
        print(f"{count} objects, runner {used:.0f} MiB, {busy:.1f} s of processor time")
        return whole and used < RUNNER_MIB


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
