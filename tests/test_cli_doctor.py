"""How `dstack doctor` shows what it found: whole words, however wide the terminal."""

from pathlib import Path

import pytest

from cli.doctor import BEFORE
from cli.terminal import hanging
from tests.calls import desk
from tests.terminal import terminal

TEXT = "there is no Docker engine at /var/run/docker.sock: install Docker, start it, or set DOCKER_HOST. " * 2
LONG = "file:///" + "x" * 100


@pytest.mark.parametrize("columns", [1, 40, 60, 80, 160])
def test_lines_break_at_spaces_and_stand_below_each_other(columns: int) -> None:
    first, *more = hanging(TEXT, BEFORE, columns).split("\n")
    assert " ".join([first, *(line.removeprefix(" " * BEFORE) for line in more)]) == TEXT.strip()
    assert all(line.startswith(" " * BEFORE) and line[BEFORE] != " " for line in more)
    if columns >= 60:
        assert BEFORE + len(first) <= columns
        assert max(map(len, more), default=0) <= columns


def test_an_address_stays_whole() -> None:
    assert LONG in hanging(f"the store {LONG} is away", BEFORE, 60).split("\n" + " " * BEFORE)


def test_a_terminal_is_filled_and_a_pipe_gets_one_line_for_each_check(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    at = desk(tmp_path, capfd)
    piped = at.dstack("doctor").out.splitlines()
    assert all(line.startswith(("ok ", "warning ", "bad ")) for line in piped), piped
    with terminal(at.folder, "doctor", COLUMNS="60") as shown:
        assert shown.end() in (0, 1)
    lines = shown.shown.splitlines()
    # A path is one word, however long; before it stand the result and the name.
    assert all(len(line) <= 60 for line in lines if len(line.split()) > 3), lines
    assert len(lines) > len(piped)
