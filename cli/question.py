"""A question at a terminal, where ^C is an answer from the moment the question is shown.

Line editors (GNU readline, behind `input`) lose an interrupt that comes just before they begin to read.
"""

import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

_INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM})
_CHUNK = 4096


def confirm(question: str, *, default: bool = False) -> bool:
    """Yes or no. Raises KeyboardInterrupt on ^C (or SIGTERM, where that is handled), Abort at the end of input."""
    words = {"y": True, "yes": True, "n": False, "no": False, "": default}
    answer = _answered(f"{question} [{'Y/n' if default else 'y/N'}]: ", tuple(words), "answer y or n")
    return words[answer]


def choose(question: str, choices: Sequence[str], *, default: str) -> str:
    """One of the choices. Raises as `confirm`."""
    answer = _answered(f"{question} [{default}]: ", (*choices, ""), f"answer one of {', '.join(choices)}")
    return answer or default


def _answered(prompt: str, accepted: Sequence[str], otherwise: str) -> str:
    with _signals() as signals:
        while True:
            click.echo(prompt, nl=False, err=True)
            answer = _line(signals).strip().lower()
            if answer in accepted:
                return answer
            click.echo(otherwise, err=True)


@contextmanager
def _signals() -> Iterator[int]:
    """A pipe to read the numbers of signals from, as they come. Only in the main thread."""
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(before)
        os.close(ours)
        os.close(theirs)


def _line(signals: int) -> str:
    source, text = sys.stdin.fileno(), b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([source, signals], [], [])
        if signals in ready and _INTERRUPTS.intersection(os.read(signals, _CHUNK)):
            raise KeyboardInterrupt
        if source in ready:
            data = os.read(source, _CHUNK)
            if not data:
                raise click.Abort
            text += data
    return text.decode(errors="replace")
