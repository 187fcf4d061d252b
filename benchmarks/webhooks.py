"""Measures the receiver of webhooks while a run of 2,000 jobs is being decided: `python -m benchmarks.webhooks`.

The receiver has one core to itself; the deciding controller and who sends the deliveries share another.
"""

import asyncio
import functools
import hashlib
import hmac
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from benchmarks import decide
from dstack.model.decide import decide as decide_turn
from dstack.model.hookpath import HOOKS, hook_path
from webhooks.server import Receiver, Served, What

SECRET, NAME = "a secret of the benchmark", "acme/train"
JOBS = 2000
CONNECTIONS = 16
SECONDS = 8.0
STORM = 10_000
ANSWER = b"push: refs/heads/main\n"
LEAST_RATE, MOST_P99 = 1500, 100.0


def requests() -> Iterator[bytes]:
    """Signed pushes of some 8 KiB, each a delivery of its own."""
    commits = [{"id": "c" * 40, "message": "Mend what was broken " * 10, "added": ["a/b.py"]} for _ in range(28)]
    body = json.dumps({"ref": "refs/heads/main", "before": "1" * 40, "after": "2" * 40, "commits": commits}).encode()
    signature = hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()
    head = (
        f"POST {HOOKS}{hook_path(SECRET, NAME)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n"
    )
    for number in count():
        yield f"{head}X-GitHub-Delivery: {number}\r\n\r\n".encode() + body


class Sender(asyncio.Protocol):
    """Sends the next delivery when the last was answered, until nothing more is to be sent."""

    def __init__(self, deliveries: Iterator[bytes], times: list[float], ended: asyncio.Event) -> None:
        """`times`: where the milliseconds go that each took."""
        self._deliveries, self._times, self._ended = deliveries, times, ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """An answer ends with what was heard."""
        self._answer += data
        if not self._answer.startswith(b"HTTP/1.1 202"):
            self._transport.abort()
        if not self._answer.endswith(ANSWER):
            return
        self._times.append((time.perf_counter() - self._began) * 1000)
        self._next()

    def connection_lost(self, _exc: Exception | None) -> None:
        """All was sent, or one was refused: then there are fewer answers than there should be."""
        self._ended.set()

    def _next(self) -> None:
        delivery = next(self._deliveries, None)
        if delivery is None:
            self._transport.close()
            return
        self._began, self._answer = time.perf_counter(), b""
        self._transport.write(delivery)


def until(deliveries: Iterator[bytes], end: float) -> Iterator[bytes]:
    for delivery in deliveries:
        if time.perf_counter() >= end:
            return
        yield delivery


def some(deliveries: Iterator[bytes], number: int) -> Iterator[bytes]:
    for _, delivery in zip(range(number), deliveries, strict=False):
        yield delivery


async def send(port: int, deliveries: Iterator[bytes]) -> tuple[float, list[float]]:
    """Deliveries a second, and the milliseconds of each."""
    times: list[float] = []
    events = [asyncio.Event() for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for event in events:
        made = functools.partial(Sender, deliveries, times, event)
        await asyncio.get_running_loop().create_connection(made, "127.0.0.1", port)
    for event in events:
        await event.wait()
    return len(times) / (time.perf_counter() - began), times


def sending(port: int, core: int, pipe: Connection) -> None:
    """The process that sends: first for a while, then a storm."""
    os.sched_setaffinity(0, {core})
    deliveries = requests()
    uvloop.run(send(port, some(deliveries, 500)))  # it is warm then
    pipe.send(uvloop.run(send(port, until(deliveries, time.perf_counter() + SECONDS))))
    pipe.recv()
    pipe.send(uvloop.run(send(port, some(deliveries, STORM))))


def main() -> None:
    """Print what was measured."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:  # noqa: PLR2004 (one for the receiver, one for the others)
        print("one core alone: the receiver shares it with all that disturb it")
    decide.JOBS = JOBS
    whole = decide.world()
    woken: list[What] = []
    receiver = Receiver("0", [Served(name=NAME, secrets=(SECRET,))], lambda _, what: woken.append(what))
    while receiver.pid is None:
        time.sleep(0.01)
    os.sched_setaffinity(receiver.pid, {cores[-1]})
    os.sched_setaffinity(0, {cores[0]})
    ours, theirs = multiprocessing.Pipe()
    sender = multiprocessing.get_context("spawn").Process(
        target=sending, args=(int(receiver.address.rpartition(":")[2]), cores[0], theirs), daemon=True
    )
    sender.start()
    turns = 0
    while sender.is_alive() and not ours.poll():
        decide_turn(whole, decide.NOW)
        turns += 1
    theirs.close()  # or the end of a sender that failed would be waited for
    rate, times = ours.recv()
    p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    print(f"receiver on core {cores[-1]}; {turns} turns of {JOBS} jobs decided, and the sender, on core {cores[0]}")
    print(f"verified deliveries a second {rate:8.0f}      (at least {LEAST_RATE})")
    print(f"median, p99                  {p50:8.1f} ms   {p99:.1f} ms (at most {MOST_P99:.0f})")
    time.sleep(5)  # the storm before has died down
    woken.clear()
    ours.send("go on")
    rate, _ = ours.recv()
    time.sleep(2.5)
    print(f"wakes by a storm of {STORM:,}    {len(woken):8}      (at most 10; at {rate:.0f} a second)")
    sender.join()
    receiver.stop()


if __name__ == "__main__":
    main()
