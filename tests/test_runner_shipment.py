"""A log on its way to the store: whatever is interrupted, nothing is lost, doubled, or kept in memory."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model import keys
from dstack.model.errors import Unavailable
from dstack.store.log_reader import LogReader
from dstack.store.log_writer import LogWriter
from dstack.store.memory import MemoryStore
from dstack.store.store import Sent, Source, unwatched
from runner import shipment, shipped
from runner.frames import STDERR, STDOUT, SYSTEM, Frame, pack
from runner.logship import LogShip
from runner.output import OutputFile
from runner.shipment import Shipment, say
from runner.shipped import EVERY, KEPT
from tests.attempts import until

PREFIX = "logs/fast-rabbit-1.5ab98f2089ae/0123456789ab/1"


class Desk:
    """A file of frames, a store that may be away, and a shipment between them."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.away = False
        self.puts = 0
        self.store = MemoryStore(away=lambda: self.away)
        self.shipment = self.anew()

    def anew(self) -> Shipment:
        """As after a restart of the runner."""
        self.shipment = Shipment(self.output, lambda: LogWriter.resume(self.store, PREFIX), began=0.0)
        return self.shipment

    def write(self, text: bytes, stream: int = STDOUT) -> None:
        with self.output.open("ab") as file:
            file.write(pack(Frame(stream, 1_700_000_000.0, text)))

    def read(self) -> tuple[bytes, bool]:
        reader, data = LogReader(self.store, PREFIX), b""
        while records := reader.poll(whole=True).records:
            data += b"".join(record.data for record in records)
        return data, reader.closed


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_without_output_there_is_an_empty_closed_log(desk: Desk) -> None:
    desk.shipment.tick(0.0)
    assert desk.shipment.close([], 1.0) == 0
    assert desk.read() == (b"", True)


def test_it_waits_a_little_and_then_sends(desk: Desk) -> None:
    desk.write(b"a")
    desk.shipment.tick(0.0)
    assert desk.read() == (b"", False)
    desk.write(b"b", STDERR)
    desk.shipment.tick(0.5)
    assert desk.read() == (b"ab", False)


def test_a_frame_that_is_being_written_is_waited_for(desk: Desk) -> None:
    whole = pack(Frame(STDOUT, 1.0, b"hello"))
    desk.output.write_bytes(whole[:9])
    desk.shipment.tick(0.0)
    desk.shipment.tick(1.0)
    desk.output.write_bytes(whole)
    assert desk.shipment.close([], 1.0) == 5
    assert desk.read() == (b"hello", True)


def test_last_words_come_once_however_often_the_store_goes_away(desk: Desk) -> None:
    desk.write(b"a\n")
    for _ in range(3):
        desk.away = True
        with pytest.raises(Unavailable):
            desk.shipment.close(["stopped"], 2.0)
        desk.away = False
    assert desk.shipment.close(["stopped"], 2.0) == len(b"a\ndstack: stopped\n")
    desk.shipment.tick(100.0)
    assert desk.shipment.close(["stopped"], 2.0) == len(b"a\ndstack: stopped\n")
    assert desk.read() == (b"a\ndstack: stopped\n", True)


def test_a_closed_log_stays_as_it_is_after_a_restart(desk: Desk) -> None:
    desk.write(b"a\n")
    size = desk.shipment.close(["stopped"], 2.0)
    assert desk.anew().close(["stopped"], 3.0) == size
    assert desk.read() == (b"a\ndstack: stopped\n", True)


def test_a_damaged_file_gives_what_comes_before(desk: Desk) -> None:
    desk.write(b"good\n")
    with desk.output.open("ab") as file:
        file.write(b"\xff" * 50)
    desk.shipment.close([], 1.0)
    assert desk.read() == (b"good\n", True)


def test_much_output_is_sent_chunk_by_chunk(desk: Desk) -> None:
    for number in range(64):
        desk.write(bytes([number]) * 100_000)
    desk.shipment.tick(0.0)
    assert len(desk.read()[0]) > 5_000_000, "what fills chunks doesn't wait"
    assert desk.shipment.close([], 1.0) == 6_400_000
    data, closed = desk.read()
    assert closed
    assert data == b"".join(bytes([number]) * 100_000 for number in range(64))


def test_dstack_says_its_own_before_the_commands_do(desk: Desk) -> None:
    say(desk.output, "the remote is away", 1.0)
    desk.write(b"hello\n")
    desk.shipment.close([], 1.0)
    assert desk.read()[0] == b"dstack: the remote is away\nhello\n"


def test_what_could_not_be_sent_is_sent_though_nothing_more_is_written(desk: Desk) -> None:
    for _ in range(3):
        desk.write(b"x" * 1_000_000)
    desk.away = True
    desk.shipment.tick(0.0)
    desk.away = False
    desk.shipment.tick(100.0)
    desk.shipment.tick(200.0)
    assert desk.read()[0] == b"x" * 3_000_000


def test_many_short_pieces_make_few_and_whole_chunks(desk: Desk) -> None:
    piece = pack(Frame(STDOUT, 1_700_000_000.0, b"step 12 of 3000: loss 0.123\n"))
    desk.output.write_bytes(piece * 100_000)
    desk.shipment.tick(0.0)
    desk.shipment.tick(1.0)
    assert desk.read()[0] == b"step 12 of 3000: loss 0.123\n" * 100_000
    assert len(list(desk.store.list(f"{PREFIX}/"))) == 3


def test_last_words_that_came_half_are_not_said_twice(desk: Desk) -> None:
    desk.write(b"a\n")
    writer = LogWriter.resume(desk.store, PREFIX)
    writer.append([(STDOUT, 1.0, b"a\n"), (SYSTEM, 1.0, b"dstack: sto")])
    writer.flush()
    desk.shipment.close(["stopped"], 2.0)
    assert desk.read() == (b"a\ndstack: stopped\n", True)


def test_a_put_that_hangs_holds_up_no_other_log(tmp_path: Path) -> None:
    released = threading.Event()

    class Hanging(MemoryStore):
        def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
            assert released.wait(60)
            return super().put(key, data, if_absent=if_absent, sent=sent)

    good, bad = MemoryStore(), Hanging()
    ship = LogShip(lambda: 1000.0)
    for number in range(20):
        output = tmp_path / str(number)
        output.write_bytes(pack(Frame(STDOUT, 1.0, b"x" * 1_000_000)) * 2)
        store = bad if number < 19 else good
        ship.add(
            output.name,
            lambda output=output, store=store: Shipment(  # type: ignore[misc]
                output, lambda: LogWriter.resume(store, f"{PREFIX}-{output.name}"), began=0.0
            ),
        )
    ship.start()
    try:
        until(lambda: len(list(good.list(f"{PREFIX}-19/"))) > 0)
        assert not list(bad.list(f"{PREFIX}-0/"))
        released.set()
        until(lambda: all(list(bad.list(f"{PREFIX}-{number}/")) for number in range(19)))
    finally:
        released.set()
        ship.stop()


def test_the_disk_gets_back_what_was_sent_and_everything_goes_on(desk: Desk) -> None:
    text = b"".join(b"%07d line of a log that has no end\n" % number for number in range(30_000))
    for _ in range(50):
        desk.write(text[:800_000])
        desk.write(text[800_000:], STDERR)
        desk.shipment.tick(0.0)
    desk.shipment.tick(1.0)
    assert desk.output.stat().st_size > 50 * len(text)
    assert desk.output.stat().st_blocks * 512 < KEPT + 2 * EVERY

    desk.anew()
    going_on = OutputFile(desk.output)
    assert going_on.seen == {STDOUT: 50 * 800_000, STDERR: 50 * (len(text) - 800_000)}
    going_on.write(STDOUT, b"the end\n")
    going_on.close()
    assert desk.shipment.close([], 1.0) == 50 * len(text) + 8
    assert desk.read() == (50 * text + b"the end\n", True)


def test_what_a_store_took_and_lost_is_a_gap_that_shows(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipment, "EVERY", 1)
    for number in range(3):
        desk.write(b"line %d\n" % number)
        desk.shipment.tick(number * 100.0)
        desk.shipment.tick(number * 100.0 + 50)
    desk.store.delete(keys.chunk(PREFIX, 2))
    desk.anew()
    desk.write(b"the end\n")
    desk.anew().close([], 1.0)
    gap = b"[dstack: 7 bytes of this log are missing before part 2]\n"
    assert desk.read() == (b"line 0\nline 1\n" + gap + b"the end\n", True)


def test_a_note_that_is_damaged_is_no_end(desk: Desk) -> None:
    desk.output.with_name("output.sent").write_bytes(b"{")
    desk.write(b"a\n")
    assert desk.shipment.close([], 1.0) == 2


@pytest.mark.parametrize("every", [EVERY, 1])
@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR, SYSTEM]), st.binary(max_size=40)), max_size=20), st.data())
def test_any_interruption_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, every: int, pieces: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipment, "EVERY", every)
        patch.setattr(shipped, "KEPT", 0)
        _interrupted(Desk(tmp_path_factory.mktemp("log")), pieces, data)


def _interrupted(desk: Desk, pieces: list[tuple[int, bytes]], data: st.DataObject) -> None:
    now = 0.0
    for stream, text in pieces:
        desk.write(text, stream)
        now += data.draw(st.sampled_from([0.0, 0.6, 70.0]))
        desk.away = data.draw(st.booleans())
        desk.shipment.tick(now)
        if data.draw(st.booleans()):
            desk.anew()
    desk.away = False
    desk.shipment.close([], 1.0)
    assert desk.read() == (b"".join(text for _, text in pieces), True)
