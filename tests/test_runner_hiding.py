"""Secrets on a log's way to the store: never in it, however output is cut and whenever the runner is restarted."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.store.log_reader import LogReader
from dstack.store.log_writer import LogWriter
from dstack.store.memory import MemoryStore
from runner import hiding, shipment, shipped
from runner.frames import STDERR, STDOUT, SYSTEM, Frame, pack
from runner.hiding import HOLD_SECONDS, Hiding
from runner.masking import hidden, needles
from runner.shipment import Shipment

PREFIX = "logs/fast-rabbit-1.5ab98f2089ae/0123456789ab/1"
SECRETS = ("abcab", "bbbb", "caba\nabab", "cabcabcabcabc")
WANTED = needles(SECRETS)

PIECE = st.tuples(st.sampled_from([STDOUT, STDERR]), st.text(alphabet="abc\n", max_size=12))
TICK, LATER, RESTART = "tick", "later", "restart"
STEP = PIECE | st.sampled_from([TICK, LATER, RESTART])


class Desk:
    """A log that is written, sent, and taken up again by another runner."""

    def __init__(self, folder: Path) -> None:
        self.output, self.store, self.now = folder / "output", MemoryStore(), 0.0
        self.raw = {STDOUT: b"", STDERR: b""}
        self.shipment = self.anew()

    def anew(self) -> Shipment:
        def open_writer() -> LogWriter:
            return LogWriter.resume(self.store, PREFIX)

        self.shipment = Shipment(self.output, open_writer, began=self.now, secrets=WANTED)
        return self.shipment

    def write(self, stream: int, text: str) -> None:
        with self.output.open("ab") as file:
            file.write(pack(Frame(stream, 1_700_000_000.0, text.encode())))
        self.raw[stream] += text.encode()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.shipment.tick(self.now)

    def shown(self) -> dict[int, bytes]:
        """By stream, what stands in the store."""
        reader, found = LogReader(self.store, PREFIX), {STDOUT: b"", STDERR: b"", SYSTEM: b""}
        while records := reader.poll(whole=True).records:
            for record in records:
                found[record.stream] += record.data
        return found


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_the_store_never_sees_a_secret_and_every_byte_keeps_its_place(steps: list[tuple[int, str] | str]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Marks and holes as in a log of gigabytes.
        patch.setattr(shipment, "EVERY", 24)
        patch.setattr(shipped, "KEPT", 8)
        desk = Desk(Path(folder))
        for step in steps:
            if not isinstance(step, str):
                desk.write(*step)
            elif step == RESTART:
                desk.anew()
            else:
                desk.tick(0.3 if step == TICK else 40.0)
            check(desk)
        size = desk.shipment.close(["gone: abcab"], 2.0)
        check(desk)
        shown = desk.shown()
        assert shown[SYSTEM] == b"dstack: gone: *****\n"
        assert {stream: len(data) for stream, data in desk.raw.items()} == {
            stream: len(shown[stream]) for stream in desk.raw
        }
        assert size == sum(map(len, shown.values()))


def check(desk: Desk) -> None:
    """What is in the store: no secret, and else what was written."""
    shown = desk.shown()
    for stream, raw in desk.raw.items():
        assert not any(needle in shown[stream] for needle in WANTED)
        assert all(a in (b, ord("*")) for a, b in zip(shown[stream], raw, strict=False))
        covered = mask(raw)
        assert all(a in (b, c) for a, b, c in zip(shown[stream], covered, raw, strict=False))


def mask(raw: bytes) -> bytes:
    whole = bytearray(raw)
    for needle, at in itertools.product(WANTED, range(len(raw))):
        if raw.startswith(needle, at):
            whole[at : at + len(needle)] = b"*" * len(needle)
    return bytes(whole)


def test_what_may_be_a_secret_waits_for_more_and_not_for_long() -> None:
    log = Hiding(needles(["token-1234"]))
    assert log.feed([(STDOUT, 1.0, b"it is tok")], 5.0) == [(STDOUT, 1.0, b"it is ")]
    assert log.feed([(STDERR, 2.0, b"oh")], 5.5) == [], "the order stays"
    assert not log.is_due(5.0 + HOLD_SECONDS / 2)
    assert log.is_due(5.0 + HOLD_SECONDS)
    assert log.flush() == [(STDOUT, 1.0, b"tok"), (STDERR, 2.0, b"oh")]
    assert log.feed([(STDOUT, 3.0, b"en-1234!")], 9.0) == [(STDOUT, 3.0, b"*******!")], "and its rest is hidden still"


def test_a_flood_of_one_stream_is_not_kept_in_memory_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "HOLD_BYTES", 1000)
    log = Hiding(needles(["token-1234"]))
    assert log.feed([(STDOUT, 1.0, b"tok")], 1.0) == []
    assert sum(len(data) for _, _, data in log.feed([(STDERR, 1.0, b"x" * 2000)], 1.0)) == 2003
    assert not log.waits


def test_a_prompt_that_ends_like_a_secret_begins_is_sent_when_nothing_more_comes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write(STDOUT, "ready? abca")
    desk.tick(0.0)
    desk.tick(0.5)
    assert desk.shown()[STDOUT] == b"ready? "
    for _ in range(8):
        desk.tick(0.5)
    assert desk.shown()[STDOUT] == b"ready? abca"


def test_without_secrets_nothing_is_looked_at() -> None:
    pieces = [(STDOUT, 1.0, b"tok"), (STDERR, 1.0, b"")]
    log = Hiding(())
    assert log.feed(pieces, 1.0) == pieces
    assert not log.waits


def test_a_sentence_hides_them_too() -> None:
    assert hidden("can't use tök-12345 twice: tök-12345", needles(["tök-12345"])) == (
        "can't use ********** twice: **********"
    )
    assert hidden("nothing here", needles(["token-1234"])) == "nothing here"


def test_a_long_key_is_hidden_however_it_is_cut() -> None:
    key = "x" + "".join(f"{number:07d}" for number in range(12_000))
    log, shown = Hiding(needles([key])), b""
    for start in range(0, len(key), 8000):
        shown += b"".join(data for _, _, data in log.feed([(STDOUT, 1.0, key[start : start + 8000].encode())], 1.0))
    assert shown == b"*" * len(key)
    assert not log.waits
