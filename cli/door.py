"""The one door of every command: an error becomes a message and an exit code; no traceback leaves."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress

import click

from dstack import interrupts
from dstack.model.errors import DstackError

GOOD, TROUBLE, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130


def passing(program: str, work: Callable[[], object]) -> int:
    """Do the work; the result is the exit code (SPEC section 3)."""
    _be_forgiving()
    try:
        result = work()
        sys.stdout.flush()
    except click.Abort as error:
        if error.__cause__ is None:  # ^C or the end of input at a question; elsewhere click has begun a line already
            _tell("")
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the door)
        return INTERRUPTED if interrupts.is_pending() else _explain(program, error)
    if interrupts.is_pending():
        return INTERRUPTED
    return result if isinstance(result, int) else GOOD


def _explain(program: str, error: Exception) -> int:
    if isinstance(error, click.ClickException):
        error.show()
        return USAGE if isinstance(error, click.UsageError) else TROUBLE
    if isinstance(error, DstackError):
        _tell(f"{program}: {error}")
        return TROUBLE
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return TROUBLE
    return _report(program)


def _be_forgiving() -> None:
    """A name that isn't text must not end a command that only wants to show it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """Whoever read our output is gone (`| head`): Python must not complain again when it closes the stream."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(program: str) -> int:
    """Write what went wrong into a file, for a bug report, and say where it is."""
    from cli.report import report_text, write_report  # noqa: PLC0415 (it is hardly ever needed)

    text = report_text(program)
    last = text.strip().splitlines()[-1]
    place = write_report(text)
    where = f"A report is in {place}; please send it to us." if place else f"No report could be written:\n{text}"
    _tell(f"{program}: a mistake of ours, not yours: {last}\n{where}")
    return BUG


def _tell(text: str) -> None:
    with suppress(OSError, ValueError):
        click.echo(text, err=True)
