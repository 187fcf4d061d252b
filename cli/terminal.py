"""Standard output and error: is it a terminal, how wide, is colour welcome; and text made safe to show."""

import os
import shutil
import sys
import textwrap

import click

NARROW = 20
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL |= {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r"}
# What turns the direction of writing, or ends lines, makes one text look like another.
_CONTROL |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def say(text: str = "") -> None:
    """A line of what was asked for, to standard output, at once."""
    click.echo(text)


def tell(text: str) -> None:
    """A line about what is going on, to standard error: it is never in the way of a pipe."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def in_colour() -> bool:
    """Only on a terminal, and never against the user's wish (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size().columns


def hanging(text: str, indent: int, columns: int) -> str:
    """The text in lines of so many columns, broken at spaces, all but the first behind `indent` columns."""
    room = max(columns - indent, NARROW)
    return f"\n{' ' * indent}".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))


def said_within(text: str, indent: int) -> str:
    """Likewise, by the width of the terminal that `tell` writes to; the text as it is where none reads that."""
    return hanging(text, indent, width()) if sys.stderr.isatty() else text


def clean(text: str) -> str:
    """Text from a file, ref or note, without what could command a terminal."""
    return text.translate(_CONTROL)


def coloured(text: str, colour: str) -> str:
    """The text in a colour, where colour is welcome."""
    return click.style(text, fg=colour) if in_colour() else text
