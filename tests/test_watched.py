"""Somebody follows a log: its lines come at once, however long the job has run; and few pieces when nobody looks."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from cli import attention, following
from cli.attention import Attention
from cli.following import follow
from cli.lines import RunLine
from cli.log_text import LogPrinter
from cli.tails import Tails
from dstack.model import keys
from dstack.model.errors import Failed, Unavailable
from dstack.model.refs import RunKey
from dstack.model.status import Status
from dstack.store import watched
from dstack.store.log_reader import LogReader
from dstack.store.log_writer import LogWriter
from dstack.store.memory import MemoryStore
from dstack.store.store import Head, Sent, Source, unwatched
from runner import audience
from runner.audience import Audiences
from runner.frames import STDOUT, Frame, pack
from runner.shipment import Shipment
from tests.attempts import until

if TYPE_CHECKING:
    from cli.reading import Reader

KEY = RunKey.of("fast-rabbit-1", "5ab98f2089ae" + 28 * "0")
RUN = str(KEY)
PREFIX = keys.log(RUN, "0123456789ab", 1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Shop(MemoryStore):
    """A store with a clock set by hand, that counts questions about signs and may refuse to take any."""

    def __init__(self) -> None:
        self.ticks = 0.0
        self.asked = 0
        self.gone = False
        self.refusal: Exception | None = None
        self.puts: list[str] = []
        super().__init__(clock=lambda: BEGIN + timedelta(seconds=self.ticks), away=lambda: self.gone)

    def head(self, key: str) -> Head | None:
        self.asked += 1
        return super().head(key)

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        self.puts.append(key)
        if self.refusal and key.startswith("watched/"):
            raise self.refusal
        return super().put(key, data, if_absent=if_absent, sent=sent)

    @property
    def chunks(self) -> int:
        return len(list(self.list(f"{PREFIX}/")))


class Log:
    """A job that writes a line every tenth of a second, and its shipment."""

    def __init__(self, folder: Path, shop: Shop, prefix: str = PREFIX, share: Audiences | None = None) -> None:
        # What an hour of writing has used up; a young log is far from it.
        sent = 320 if shop.ticks else 0
        folder.mkdir(exist_ok=True)
        self.shop, self.output, self.written = shop, folder / "output", 0
        followed = (share or Audiences(lambda _url: shop)).of("memory:", RUN)
        self.shipment = Shipment(self.output, lambda: LogWriter(shop, prefix, seq=sent), began=0.0, followed=followed)
        self.reader, self.worst, self.read = LogReader(shop, prefix, seq=sent), 0.0, 0

    def write_and_ship(self) -> None:
        with self.output.open("ab") as file:
            file.write(pack(Frame(STDOUT, self.shop.ticks, b"%f\n" % self.shop.ticks)))
        self.written += 1
        self.shipment.tick(self.shop.ticks)

    def look(self) -> None:
        for record in self.reader.poll().records:
            for line in record.data.splitlines():
                self.worst = max(self.worst, self.shop.ticks - float(line))
                self.read += 1


def run(shop: Shop, logs: list[Log], seconds: int, each: Callable[[], None] = lambda: None) -> None:
    for step in range(seconds * 10):
        shop.ticks = round(shop.ticks + 0.1, 1)
        if step % 10 == 0:
            each()
        for log in logs:
            log.write_and_ship()


def test_the_sign_holds_for_a_while_by_the_clock_of_the_store() -> None:
    shop = Shop()
    shop.ticks = 1e6
    assert watched.left(shop, RUN) == 0
    watched.renew(shop, RUN)
    assert watched.left(shop, RUN) == watched.FRESH_SECONDS
    shop.ticks += watched.FRESH_SECONDS - 1
    assert watched.left(shop, RUN) == 1
    shop.ticks += 1
    assert watched.left(shop, RUN) == 0
    watched.renew(shop, RUN)
    watched.remove(shop, RUN)
    watched.remove(shop, RUN)
    assert watched.left(shop, RUN) == 0


def test_a_sign_from_the_future_holds_no_longer_than_any() -> None:
    shop = Shop()
    shop.ticks = 500.0
    watched.renew(shop, RUN)
    shop.ticks = 0.0
    assert watched.left(shop, RUN) == watched.FRESH_SECONDS


def test_a_job_that_has_written_for_an_hour_is_read_at_once_while_somebody_follows(tmp_path: Path) -> None:
    shop = Shop()
    shop.ticks = 3600.0
    log = Log(tmp_path, shop)
    run(shop, [log], 120)
    alone = shop.chunks
    assert alone <= 12, "few pieces when nobody looks"
    watched.renew(shop, RUN)
    run(shop, [log], 5)
    log.look()
    log.worst, log.read = 0.0, 0

    def renewed() -> None:
        if shop.ticks % watched.RENEW_SECONDS < 1:
            watched.renew(shop, RUN)

    for _ in range(60):
        run(shop, [log], 1, renewed)
        log.look()
    assert log.read > 500
    assert log.worst <= 2.1, "0.9 s until it is sent, and a second between two looks of this test"
    assert shop.chunks - alone <= 75, "about one a second"


def test_a_log_that_nobody_follows_any_more_goes_back_to_few_pieces_and_keeps_its_credit(tmp_path: Path) -> None:
    shop = Shop()
    shop.ticks = 3600.0
    log = Log(tmp_path, shop)
    run(shop, [log], 60, lambda: watched.renew(shop, RUN))
    assert shop.chunks > 40
    run(shop, [log], int(watched.FRESH_SECONDS) + 5)
    before = shop.chunks
    run(shop, [log], 120)
    assert shop.chunks - before <= 8
    shop.ticks += 300.0
    log.shipment.tick(shop.ticks)
    before = shop.chunks
    run(shop, [log], 1)
    assert shop.chunks > before, "a line after a silence is there at once, as if nobody had ever followed"


def test_the_store_is_asked_seldom_once_for_a_run_and_only_where_it_matters(tmp_path: Path) -> None:
    shop, share = Shop(), Audiences(lambda _url: shop)
    run(shop, [Log(tmp_path / "young", shop, share=share)], 30)
    assert shop.asked == 0, "a young log comes at once anyway"
    shop.ticks = 3600.0
    logs = [Log(tmp_path / str(n), shop, keys.log(RUN, f"{n:012}", 1), share) for n in range(20)]
    run(shop, logs, 30)
    assert 0 < shop.asked <= 30 / audience.LOOK_SECONDS + 1
    shop.ticks += 60.0
    for log in logs:
        log.shipment.tick(shop.ticks)
    shop.asked = 0
    for step in range(100):
        for log in logs:
            log.shipment.tick(shop.ticks + step)
    assert shop.asked == 0, "a job that says nothing asks nothing"


def test_a_store_that_does_not_answer_changes_nothing_until_the_sign_is_stale() -> None:
    shop = Shop()
    watched.renew(shop, RUN)
    followed = Audiences(lambda _url: shop).of("memory:", RUN)
    assert followed(0.0)
    shop.gone = True
    assert followed(watched.FRESH_SECONDS - 1)
    assert not followed(watched.FRESH_SECONDS + 1)
    shop.gone = False
    shop.ticks = watched.FRESH_SECONDS + 1
    watched.renew(shop, RUN)
    assert followed(watched.FRESH_SECONDS + 1 + audience.LOOK_SECONDS)


def test_a_run_that_is_over_on_this_machine_is_forgotten() -> None:
    share = Audiences(lambda _url: Shop())
    first = share.of("memory:", RUN)
    assert share.of("memory:", RUN) is first
    assert share.of("memory:", "other-1.5ab98f2089ae") is not first
    del first
    assert len(share._known) == 0


def test_who_follows_renews_the_sign_and_takes_it_away_when_the_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "RENEW_SECONDS", 0.01)
    shop, one = Shop(), Attention(KEY)
    one.show(shop)
    one.show(shop)
    until(lambda: len(shop.puts) >= 3)
    one.end(over=True)
    assert watched.left(shop, RUN) == 0
    assert set(shop.puts) == {keys.watched(RUN)}
    assert "attention" not in {thread.name for thread in threading.enumerate()}


def test_who_leaves_a_run_that_goes_on_lets_the_sign_grow_stale() -> None:
    shop, one = Shop(), Attention(KEY)
    one.show(shop)
    until(lambda: bool(shop.puts))
    one.end(over=False)
    assert watched.left(shop, RUN) > 0, "somebody else may follow, too"


def test_a_new_run_that_ends_soon_costs_nothing() -> None:
    shop, one = Shop(), Attention(KEY, after=attention.NEW_SECONDS)
    one.show(shop)
    one.end(over=True)
    assert shop.puts == []


def test_without_the_right_to_write_he_follows_in_silence(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "RENEW_SECONDS", 0.001)
    caplog.set_level("DEBUG")
    shop, one = Shop(), Attention(KEY)
    shop.refusal = Failed("access denied")
    one.show(shop)
    until(lambda: len(caplog.records) > 0)
    one.end(over=True)
    assert len(shop.puts) == 1, "it isn't asked for again"
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert capsys.readouterr() == ("", "")


def test_a_store_that_is_away_gets_the_sign_when_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "RENEW_SECONDS", 0.01)
    caplog.set_level("DEBUG")
    shop, one = Shop(), Attention(KEY)
    shop.refusal = Unavailable("away")
    one.show(shop)
    until(lambda: len(shop.puts) >= 3)
    shop.refusal = None
    until(lambda: watched.left(shop, RUN) > 0)
    one.end(over=False)
    assert len(caplog.records) == 1


@dataclass
class Told:
    """What a poll says of the store."""

    shop: Shop

    def store(self, _url: str) -> Shop:
        return self.shop


def a_run(status: Status) -> RunLine:
    nothing = dict.fromkeys(("reason", "submitted_at", "finished_at"))
    known = {"run": KEY.name, "root": "5ab98f2089ae" + 28 * "0", "workflow": "train", "status": status, "message": ""}
    rest = {"tags": (), "submitted_by": "ada", "generation": 1, "jobs": (), "store": "memory:"}
    return msgspec.convert({**nothing, **known, **rest}, RunLine)


@pytest.mark.parametrize("left_early", [False, True])
def test_following_a_run_gives_the_sign_from_its_first_sight_to_its_end(
    monkeypatch: pytest.MonkeyPatch, *, left_early: bool
) -> None:
    shop = Shop()

    def updates(*_: object, **__: object) -> Iterator[tuple[Told, RunLine] | None]:
        yield Told(shop), a_run(Status.RUNNING)
        until(lambda: watched.left(shop, RUN) > 0)
        yield None
        if left_early:
            raise KeyboardInterrupt
        yield Told(shop), a_run(Status.DONE)

    monkeypatch.setattr(following, "updates", updates)
    tails, reader = Tails(printer=LogPrinter()), cast("Reader", None)
    if left_early:
        with pytest.raises(KeyboardInterrupt):
            follow(reader, KEY, tails, lambda _: None)
    else:
        assert follow(reader, KEY, tails, lambda _: None).finished
    assert "attention" not in {thread.name for thread in threading.enumerate()}
    assert (watched.left(shop, RUN) > 0) is left_early
