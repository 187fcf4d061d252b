"""Many repositories in one controller: what is wrong with one is its own trouble, and the list may change meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from controller import fleet as fleets
from controller.backoff import Backoff
from controller.fleet import Daemon, Fleet, Progress, Repository
from controller.main import ControllerDaemon, ControllerParts
from controller.naming import Naming
from controller.turn import Controller
from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import bucket
from dstack.model.errors import Failed, Unavailable
from dstack.model.observation import Change, Observation, Pushed
from dstack.model.world import Moment
from dstack.store.memory import MemoryStore
from tests.model_values import moment
from tests.test_controller import Beating

POLL = 0.05


class Looked:
    """A ledger that does something of its own at each look, and counts them."""

    def __init__(self, name: str, look: Callable[[], object] = str) -> None:
        self.looks = 0
        self._look = look
        self._ledger = MemoryLedger(MemoryRemote(repository=f"id-of-{name}"))

    def observe(self) -> Observation:
        self.looks += 1
        self._look()
        return self._ledger.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        return self._ledger.commit(changes, seen, atomic=atomic)

    def job(self, oid: str) -> bytes | None:
        return self._ledger.job(oid)


def repository(name: str, ledger: Looked) -> Repository:
    """One with the real daemon."""

    def opened(timers: BackgroundScheduler) -> Daemon:
        store = MemoryStore()
        parts = ControllerParts(
            ledger=ledger, store="memory:", open_store=lambda _: store, watched=None, poll=POLL, timers=timers,
            longest=fleets.LONGEST_SECONDS,
        )  # fmt: skip
        return ControllerDaemon(parts)

    return Repository(name=name, url=f"/srv/{name}", open=opened)


class Puppet:
    """A daemon that only counts what is done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.polled = False
        self._stopped = threading.Event()

    def run(self) -> None:
        self.calls.append("run")
        self._stopped.wait()

    def stop(self) -> None:
        self.calls.append("stop")
        self._stopped.set()

    def wake(self) -> None:
        self.calls.append("wake")

    def wake_code(self) -> None:
        self.calls.append("wake_code")

    def retry(self) -> None:
        self.calls.append("retry")

    def progress(self) -> Progress:
        return Progress(turns=3, pushes=2)


def puppet(name: str, daemon: Puppet, terms: str = "") -> Repository:
    return Repository(name=name, url=f"/srv/{name}", terms=terms, open=lambda _: daemon)


@contextmanager
def served(*repositories: Repository, seconds: float = 10.0) -> Generator[Fleet]:
    """They are served within the block."""
    fleet = Fleet(jitter=lambda: 0.0)
    fleet.serve(repositories)
    try:
        yield fleet
    finally:
        fleet.stop()
        fleet.run(seconds)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_one_that_hangs_and_others_that_fail_slow_nobody() -> None:
    stuck = threading.Event()

    def fails() -> None:
        msg = "nobody answers"
        raise Unavailable(msg, away=True)

    ledgers = {
        "sound": Looked("sound"),
        "hangs": Looked("hangs", stuck.wait),
        "fails": Looked("fails", fails),
        "breaks": Looked("breaks", [].pop),
        "fine": Looked("fine"),
    }
    fleet = Fleet(jitter=lambda: 0.0)
    fleet.serve([repository(name, ledger) for name, ledger in ledgers.items()])
    until(lambda: min(ledgers[name].looks for name in ("sound", "fine")) >= 12)
    found = {one.name: one for one in fleet.summary()}
    assert ledgers["hangs"].looks == 1
    assert 1 <= ledgers["fails"].looks <= 6
    assert 1 <= ledgers["breaks"].looks <= 6
    assert found["hangs"].polled_at is None
    assert found["fails"].failure == "nobody answers"
    assert found["fails"].failures >= 1
    assert found["breaks"].failure == "IndexError: pop from empty list"
    assert found["sound"].failure is None
    assert found["sound"].turns >= 12
    assert found["sound"].polled_at is not None
    fleet.stop()
    assert fleet.run(1.0) == ("hangs",)
    stuck.set()


def test_timers_of_all_are_kept_by_one_thread() -> None:
    ledgers = {f"r{number}": Looked(f"r{number}") for number in range(10)}
    before = set(threading.enumerate())
    with served(*(repository(name, ledger) for name, ledger in ledgers.items())):
        until(lambda: min(ledger.looks for ledger in ledgers.values()) >= 3)
        assert len(set(threading.enumerate()) - before) == 10 + 1


def test_one_that_cannot_be_begun_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(Naming())
    answers: list[Exception | Daemon | None] = [
        Failed("the disk is full"), Failed("the disk is full"), KeyError("x"), None, Puppet()
    ]  # fmt: skip

    def opened(_: BackgroundScheduler) -> Daemon | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with served(Repository(name="acme/train", url="/srv/train", open=opened), puppet("other", Puppet())) as fleet:

        def standing() -> fleets.Standing:
            return fleet.summary()[0]

        until(lambda: standing().failure == "the disk is full")
        until(lambda: len(answers) < 4)  # by itself
        while len(answers) > 1:
            fleet.retry()
            time.sleep(0.01)
        until(lambda: standing().failure == fleets.NOT_YET)
        assert standing().failures == 3
        fleet.wake("acme/train")  # as `dstack init` may do by its push
        until(lambda: standing().turns == 3)
        assert standing().failure is None
    told = [record.getMessage() for record in caplog.records if "acme/train" in record.getMessage()]
    assert told.count("acme/train: the disk is full; trying again") == 1
    assert f"acme/train: {fleets.NOT_YET}" in told
    assert "acme/train: it can't be served: a mistake of ours" in told
    assert "acme/train: served: state remote /srv/train" in told


def test_a_wake_up_is_for_one_alone() -> None:
    one, other = Puppet(), Puppet()
    with served(puppet("one", one), puppet("other", other)) as fleet:
        until(lambda: one.calls and other.calls)
        fleet.wake("one")
        fleet.wake("one", code=True)
        fleet.wake("nobody")
        assert one.calls == ["run", "wake", "wake_code"]
        assert other.calls == ["run"]
        fleet.retry()
    assert other.calls[1:3] == ["retry", "stop"]


def test_a_new_list_begins_what_is_new_ends_what_is_gone_and_leaves_the_rest() -> None:
    stays, goes, changes, after, comes = (Puppet() for _ in range(5))
    with served(puppet("stays", stays), puppet("goes", goes), puppet("changes", changes, "poll 2")) as fleet:
        until(lambda: all(one.calls for one in (stays, goes, changes)))
        fleet.serve([puppet("stays", Puppet()), puppet("changes", after, "poll 5"), puppet("comes", comes)])
        until(lambda: after.calls and comes.calls)
        assert [one.name for one in fleet.summary()] == ["changes", "comes", "stays"]
        assert stays.calls == ["run"]
        assert goes.calls == changes.calls == ["run", "stop"]
    assert stays.calls == ["run", "stop"]


def test_one_that_ends_by_itself_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "CRASH_SECONDS", 0.01)
    begun: list[Puppet] = []

    def opened(_: BackgroundScheduler) -> Daemon:
        begun.append(Puppet())
        if len(begun) < 3:
            begun[-1].stop()
        return begun[-1]

    with served(Repository(name="one", url="/srv/one", open=opened)):
        until(lambda: len(begun) == 3)
    assert [one.calls for one in begun] == [["stop", "run"], ["stop", "run"], ["run", "stop"]]


def test_what_fails_is_tried_after_750_ms_and_at_last_each_quarter_of_an_hour() -> None:
    backoff, waits = Backoff(), []
    for _ in range(13):
        backoff = backoff.after_outage(100.0, 1.0, Unavailable("away", away=True), fleets.LONGEST_SECONDS)
        waits.append(backoff.until - 100.0)
    assert waits[:4] == [0.75, 1.5, 3.0, 6.0]
    assert waits[-3:] == [768.0, 900.0, 900.0]
    assert backoff.after_outage(0.0, 0.0, Failed("x"), fleets.LONGEST_SECONDS).until == 450.0


def test_a_controller_that_waits_does_not_look_whoever_wakes_it_until_it_is_told_to_retry() -> None:
    down = threading.Event()
    down.set()

    def look() -> None:
        if down.is_set():
            msg = "connection refused"
            raise Unavailable(msg, away=True)

    ledger = Looked("one", look)
    controller = Controller(
        ledger=ledger, pulse=Beating(), store="memory:", entropy=str, jitter=lambda: 1.0,
        bucket=bucket.Bucket.full(interval=0.001, burst=100, now=0.0), longest=fleets.LONGEST_SECONDS,
    )  # fmt: skip
    ticks = 0.0
    while ticks < 7200.0:  # woken each 5 seconds, for two hours
        controller.step(_at(ticks))
        ticks += 5.0
    assert (ledger.looks, controller.failures) == (18, 18)
    down.clear()
    controller.step(_at(ticks))
    assert (controller.failure, controller.polled) == ("connection refused", None)
    controller.retry()
    controller.step(_at(ticks + 1.0))
    assert (controller.failure, controller.polled) == (None, _at(ticks + 1.0))
    down.set()
    assert controller.step(_at(ticks + 5.0)) == 0.75


def _at(ticks: float) -> Moment:
    return moment(ticks)
