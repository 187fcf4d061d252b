import logging
import sys

import pytest

from cli import progress
from cli.progress import plain_line, progress_bar
from runner.cancelling import Cancel, Cancelled
from runner.telling import EVERY_SECONDS, telling

MIB = 1024 * 1024


def test_a_line_says_how_far_a_transfer_is() -> None:
    assert plain_line("train", 512 * 1024, 2 * MIB) == "train: 512.0 KiB of 2.0 MiB (25 %)"
    assert plain_line("train", 0, 0) == "train: 0 B of 0 B (100 %)"
    assert "\x1b" not in plain_line("\x1b[31mtrain", 1, 2)


def test_where_nobody_looks_a_plain_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress_bar("train") as tell:
        for done in range(10_000):
            tell(done, 10_000)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    with progress_bar("train") as tell:
        tell(MIB, 4 * MIB)
    assert capsys.readouterr().err == "train: 1.0 MiB of 4.0 MiB (25 %)\n"


def test_a_terminal_gets_a_bar_with_bytes_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "_BAR_EVERY_SECONDS", 0.0)
    with progress_bar("train [red]") as tell:
        tell(MIB, 4 * MIB)
        tell(2 * MIB, 4 * MIB)
    shown = capsys.readouterr().err
    assert "train [red]" in shown
    assert "2.0/4.0 MiB" in shown
    assert "/s" in shown
    assert "0:00:0" in shown or "-:--:--" in shown


def test_the_runner_tells_its_log_now_and_then_and_gives_up_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    now, cancel = 100.0, Cancel()
    tell = telling("artifacts of a", cancel, lambda: now)
    with caplog.at_level(logging.INFO):
        tell(MIB, 10 * MIB)
        now += EVERY_SECONDS
        tell(2 * MIB, 10 * MIB)
        tell(3 * MIB, 10 * MIB)
    assert [record.getMessage() for record in caplog.records] == ["artifacts of a: 2 of 10 MiB"]
    cancel.ask()
    with pytest.raises(Cancelled):
        tell(4 * MIB, 10 * MIB)
