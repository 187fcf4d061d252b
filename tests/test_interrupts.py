"""An interrupt that Python loses in a callback of its own is not lost to us."""

import signal
import subprocess
import sys

import pytest

LOST = """
import os, signal, sys, time
from dstack import interrupts
interrupts.remember()
class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
Callback()
{then}
"""


def outcome(then: str) -> tuple[int, str]:
    """How a process ends whose interrupt came where Python can't raise it."""
    done = subprocess.run([sys.executable, "-c", LOST.format(then=then)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_is_remembered_and_not_printed() -> None:
    assert outcome("print(interrupts.is_pending())") == (0, "True\n")


def test_it_is_raised_where_somebody_asks() -> None:
    code, text = outcome("interrupts.check()")
    assert code != 0
    assert "KeyboardInterrupt" in text


def test_it_is_dealt_with_once() -> None:
    assert outcome("interrupts.answered(); interrupts.check(); print('on')") == (0, "on\n")


@pytest.mark.parametrize("work", ["lambda: None", "lambda: 1 / 0", "lambda: 0"])
def test_the_door_lets_nothing_else_stand_for_it(work: str) -> None:
    code, _ = outcome(f"from cli.door import passing; sys.exit(passing('dstack', {work}))")
    assert code == 130


def test_a_push_does_not_begin_after_it() -> None:
    then = "from cli.interrupts import deferred\nwith deferred(): print('pushed')"
    code, text = outcome(then)
    assert code != 0
    assert "pushed" not in text


def test_the_handler_is_python_s_own_without_us() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
