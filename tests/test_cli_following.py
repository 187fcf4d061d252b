"""Following logs: few requests where the store is elsewhere, and nothing is left out when it goes away."""

import json
import threading
import time
from datetime import UTC, datetime

import pytest

from cli import tails as followed
from cli.log_text import LogPrinter
from cli.tails import Tails
from dstack.model.errors import Unavailable
from dstack.store.lines import Line
from dstack.store.log_writer import LogWriter
from dstack.store.memory import MemoryStore
from tests.job_lines import a_run, running

PREFIX = "logs/fast-rabbit-1.5ab98f2089ae/0123456789ab/"


class Elsewhere(MemoryStore):
    """Counts what is asked of it, and may be away for some questions."""

    def __init__(self, away: int = 0) -> None:
        super().__init__()
        self.asked, self.away = 0, away
        self._lock = threading.Lock()

    def get(self, key: str, *, limit: int) -> bytes | None:
        with self._lock:
            self.asked += 1
            self.away -= 1
            if self.away >= 0:
                msg = "nobody is there"
                raise Unavailable(msg)
        return super().get(key, limit=limit)


def write(store: MemoryStore, key: str, *parts: bytes) -> LogWriter:
    writer = LogWriter(store, key)
    for part in parts:
        writer.append([(1, 1.0, part)])
        writer.flush()
    return writer


def test_a_store_elsewhere_is_asked_seldom_for_each_log() -> None:
    store, tails = Elsewhere(), Tails(printer=LogPrinter())
    for number in range(3):
        tails.open(running(f"{PREFIX}{number}"), f"{PREFIX}{number}", store)
    begin = time.monotonic()
    while time.monotonic() < begin + 1.2:
        tails.show()
    rounds = (time.monotonic() - begin) / followed.AWAY_LOGS_SECONDS + 1
    assert 3 * 2 <= store.asked <= 3 * rounds


def test_many_logs_are_followed_at_once(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    store, tails = Elsewhere(), Tails(printer=LogPrinter())
    for number in range(30):
        write(store, f"{PREFIX}{number}", b"%d\n" % number, b"more of %d\n" % number).close()
        tails.open(running(f"{PREFIX}{number}"), f"{PREFIX}{number}", store)
    tails.show()
    tails.drain()
    assert capsysbinary.readouterr().out == b"".join(b"%d\nmore of %d\n" % (number, number) for number in range(30))


def test_of_what_was_there_before_the_last_lines_are_shown_and_then_all_that_comes(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    store = MemoryStore()
    writer = write(store, f"{PREFIX}1", *(b"%d\n" % number for number in range(20)), b"begun, ")
    tails = Tails(printer=LogPrinter(as_json=True), last=2)
    job = running(f"{PREFIX}1")
    line = a_run(job)
    tails.take(line, store)
    for _ in range(3):
        tails.show(at_once=True)
    writer.append([(1, 30.0, b"and ended\nnext\n")])
    writer.flush()
    write(store, f"{PREFIX}2", b"of another attempt\n", b"b\n", b"c\n").close()
    tails.take(a_run(job, running(f"{PREFIX}2")), store)
    for _ in range(3):
        tails.show(at_once=True)
    writer.close()
    tails.drain()
    shown = [json.loads(text) for text in capsysbinary.readouterr().out.splitlines()]
    assert [(one["seq"], one["text"]) for one in shown] == [
        (18, "18"),
        (19, "19"),
        (20, "begun, and ended"),
        (21, "next"),
        (0, "of another attempt"),
        (1, "b"),
        (2, "c"),
    ]


@pytest.mark.parametrize(("last", "expected"), [(0, b""), (5, b"new\nnewer\n")])
def test_the_last_lines_are_those_since_the_time_and_none_of_them_twice(
    last: int, expected: bytes, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    store = MemoryStore()
    writer = LogWriter(store, f"{PREFIX}1")
    writer.append([(1, 1.0, b"old\n"), (1, 10.0, b"new\n"), (1, 11.0, b"newer\n")])
    writer.flush()
    tails = Tails(printer=LogPrinter(since=datetime.fromtimestamp(5, UTC)), last=last)
    tails.take(a_run(running(f"{PREFIX}1")), store)
    tails.show(at_once=True)
    tails.show(at_once=True)
    assert capsysbinary.readouterr().out == expected
    writer.close()
    tails.drain()
    assert capsysbinary.readouterr().out == b""


def test_at_the_end_a_store_that_is_away_is_waited_for(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "AWAY_SECONDS", 0.01)
    store, tails = Elsewhere(away=3), Tails(printer=LogPrinter())
    write(store, f"{PREFIX}1", b"one\n", b"two\n").close()
    tails.open(running(f"{PREFIX}1"), f"{PREFIX}1", store)
    tails.drain()
    shown = capsysbinary.readouterr()
    assert shown.out == b"one\ntwo\n"
    assert shown.err.count(b"the log can't be read: nobody is there") == 1


def test_at_the_end_a_store_that_stays_away_is_given_up_with_the_way_out(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "DRAIN_SECONDS", 0.0)
    store, tails = Elsewhere(away=1000), Tails(printer=LogPrinter())
    tails.open(running(f"{PREFIX}1"), f"{PREFIX}1", store)
    tails.drain()
    assert b"`dstack logs` shows it when the store is back" in capsysbinary.readouterr().err


def test_lines_of_before_are_left_out_and_the_others_keep_their_numbers(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    printer = LogPrinter(as_json=True, since=datetime.fromtimestamp(2, UTC))
    job = running(f"{PREFIX}1")
    printer.lines(job, [Line(1, 1.0, b"a"), Line(1, 2.0, b"b")])
    printer.lines(job, [Line(1, 3.0, b"c")])
    found = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [(one["seq"], one["text"]) for one in found] == [(1, "b"), (2, "c")]
