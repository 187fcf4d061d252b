"""Signals: what a daemon and a question do with one, whatever moment it comes at."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest

from cli.question import choose, confirm
from tests.terminal import END_OF_INPUT

# The signal comes while the main thread holds a lock that ending takes as well, as an event's inner lock may be.
LOCKED = """
import os, signal, threading
from cli.daemons import on_signals
lock, ended = threading.Lock(), threading.Event()
def stop():
    with lock:
        ended.set()
on_signals(stop)
with lock:
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):
        pass
print(ended.wait(10))
"""

# The signal comes just before the answer is waited for, to a handler that raises nothing.
LATE = """
import os, select, signal
signal.signal(signal.{name}, lambda *_: None)
real = select.select
def late(*args):
    os.kill(os.getpid(), signal.{name})
    return real(*args)
select.select = late
from cli.question import confirm
try:
    print(confirm("Really?"))
except KeyboardInterrupt:
    print("interrupted")
"""


def printed(program: str) -> str:
    """What a program prints whose standard input stays open and empty."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=reading, capture_output=True, text=True, timeout=20, check=True
        )
    finally:
        os.close(reading)
        os.close(writing)
    return done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_daemon_ends_though_the_signal_came_amid_its_locks(name: str) -> None:
    assert printed(LOCKED.format(name=name)) == "True\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_just_before_the_answer_is_read_is_an_answer(name: str) -> None:
    assert printed(LATE.format(name=name)) == "interrupted\n"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], int]]:
    """Types at a terminal that is standard input."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda keys: os.write(ours, keys)
    os.close(ours)


@pytest.mark.parametrize(
    ("keys", "default", "answer"),
    [(b"y\n", "n", True), (b"No\n", "y", False), (b"\n", "y", True), (b"\n", "n", False)],
)
def test_yes_and_no(typed: Callable[[bytes], int], keys: bytes, default: str, answer: object) -> None:
    typed(keys)
    assert confirm("Really?", default=default == "y") is answer


def test_an_answer_that_is_none_is_asked_for_again(
    typed: Callable[[bytes], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for keys in (b"perhaps\n", b"\xff\n", b" A \n"):
        typed(keys)
    assert choose("Which?", ("s", "a", "l"), default="l") == "a"
    assert capsys.readouterr().err.count("answer one of s, a, l") == 2


def test_the_end_of_input_is_no_answer(typed: Callable[[bytes], int]) -> None:
    typed(END_OF_INPUT.encode())
    with pytest.raises(click.Abort):
        confirm("Really?", default=True)
