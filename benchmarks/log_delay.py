"""Measures how late a line shows, and what following costs: of new logs, of old ones, of quiet ones."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.log_pool import job, log_key, pool
from cli.attention import Attention
from cli.lines import JobLine
from cli.log_text import LogPrinter
from cli.tails import Tails
from dstack.model.s3_place import parse_place
from dstack.store.lines import Line
from dstack.store.s3_client import client_of
from tests.daemons import Pool
from tests.job_lines import running
from tests.s3_server import S3Server

WORST_SECONDS = 1.5
STAMPED = 60
OLD_SECONDS, OLD_LINES = 150, 1800
STAMPS = """
import time
for n in range({count}):
    time.sleep({pause} + n % 7 / 30)
    print('at', repr(time.time()), flush=True)
"""


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


def counted(made: Pool) -> list[int]:
    """Counts the requests of this process's client from now on."""
    count = [0]

    def note(**_: object) -> None:
        count[0] += 1

    client, _ = client_of(parse_place(made.store.url))
    client.meta.events.register("before-send.s3", note)
    return count
