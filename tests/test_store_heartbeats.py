import hashlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.reading import Reader
from cli.session import open_session
from dstack.model import keys
from dstack.model.codec import encode
from dstack.model.errors import Invalid, Unavailable
from dstack.model.pool import Capacity, Heartbeat, Phase
from dstack.store.heartbeats import (
    LIMIT,
    ControllerHeartbeat,
    Known,
    delete_runner,
    home,
    read_controllers,
    read_runners,
    write_controller,
    write_runner,
)
from dstack.store.memory import MemoryStore
from dstack.store.store import Head
from tests.repositories import work

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def beat(runner: str = "lynx", instance: str = "i1", beats: int = 1) -> Heartbeat:
    return Heartbeat(
        runner=runner,
        instance=instance,
        start="s",
        beats=beats,
        polls=3,
        assignment="a" * 40,
        attempts={"0123456789ab.1": Phase.RUNNING},
        free=Capacity(cpu=1.5, memory=1024),
        at=NOW,
    )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_heartbeats_come_back_by_runner_and_instance() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    for runner, instance in (("lynx", "i1"), ("lynx", "i2"), ("wolf", "i1")):
        write_runner(store, beat(runner, instance))
    clock.now += timedelta(seconds=15)
    write_runner(store, beat("lynx", "i2", beats=2))
    found = read_runners(store)
    assert set(found.seen) == {("lynx", "i1"), ("lynx", "i2"), ("wolf", "i1")}
    assert found.seen["lynx", "i1"].heartbeat == beat()
    assert found.seen["lynx", "i1"].modified == NOW
    assert found.seen["lynx", "i2"].heartbeat.beats == 2
    assert found.seen["lynx", "i2"].modified == NOW + timedelta(seconds=15)
    assert found.problems == ()
    delete_runner(store, "lynx", "i1")
    delete_runner(store, "lynx", "i1")
    assert set(read_runners(store).seen) == {("lynx", "i2"), ("wolf", "i1")}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b" " * (LIMIT + 1), encode(beat("wolf")), encode(beat("a/b"))],
)
def test_a_broken_heartbeat_is_reported_and_the_others_are_read(data: bytes) -> None:
    store = MemoryStore()
    write_runner(store, beat())
    store.put(keys.runner_heartbeat("fox", "i1"), data)
    store.put("runners/odd", data)
    found = read_runners(store)
    assert set(found.seen) == {("lynx", "i1")}
    assert [problem.split(" can't")[0] for problem in found.problems] == [
        "the heartbeat runners/fox.i1.json",
        "the heartbeat runners/odd",
    ]


def test_a_store_that_is_away_is_no_silence() -> None:
    store = MemoryStore(away=lambda: True)
    with pytest.raises(Unavailable):
        read_runners(store)
    with pytest.raises(Unavailable):
        home(store)


def test_a_runner_of_an_odd_name_can_not_write_elsewhere() -> None:
    store = MemoryStore()
    with pytest.raises(Invalid):
        write_runner(store, beat("../../x"))


def test_somebody_is_home_for_the_time_of_his_lease() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    assert home(store) is None
    write_controller(store, ControllerHeartbeat(controller="c1", host="h", lease=60.0, at=NOW))
    store.put("controllers/broken.json", b"{")
    clock.now += timedelta(seconds=59)
    here = home(store)
    assert here is not None
    assert here.heartbeat.controller == "c1"
    clock.now += timedelta(seconds=2)
    assert home(store) is None
    write_controller(store, ControllerHeartbeat(controller="c2", at=NOW))
    assert [one.heartbeat.controller for one in read_controllers(store)] == ["c2", "c1"]


class Far(MemoryStore):
    """Answers after a while, and counts what is asked, and how many questions are open at once."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.asked, self.busy, self.most = 0, 0, 0
        self.counting = threading.Lock()

    def get(self, key: str, *, limit: int) -> bytes | None:
        with self.counting:
            self.asked, self.busy = self.asked + 1, self.busy + 1
            self.most = max(self.most, self.busy)
        time.sleep(0.01)
        with self.counting:
            self.busy -= 1
        return super().get(key, limit=limit)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        for head in super().list(prefix, after=after):
            yield head._replace(version=hashlib.md5(self._objects[head.key][0]).hexdigest())  # noqa: S324 (an ETag)


def test_many_heartbeats_are_read_at_once_and_then_only_what_has_changed() -> None:
    store, known = Far(), Known()
    for number in range(50):
        write_runner(store, beat(f"r-{number:02}"))
    store.put("runners/odd", b"{")
    first = read_runners(store, known)
    assert list(first.seen) == [(f"r-{number:02}", "i1") for number in range(50)], "in order, whoever answered first"
    assert len(first.problems) == 1
    assert store.asked == 51
    assert 8 <= store.most <= store.width
    write_runner(store, beat("r-07", beats=2))
    again = read_runners(store, known)
    assert store.asked == 51 + 2, "what changed, and what could not be read"
    assert again.seen["r-07", "i1"].heartbeat.beats == 2
    assert len(again.seen) == 50


def test_a_reader_remembers_the_heartbeats_of_each_store(tmp_path: Path) -> None:
    reader, store = Reader(open_session(work(tmp_path / "work"))), Far()
    for number in range(5):
        write_runner(store, beat(f"r-{number}"))
    assert len(reader.heartbeats(store).seen) == 5
    assert len(reader.heartbeats(store).seen) == 5
    assert store.asked == 5


def test_controllers_are_read_at_once() -> None:
    store = Far()
    for number in range(20):
        write_controller(store, ControllerHeartbeat(controller=f"c{number}", at=NOW))
    assert home(store) is not None
    assert store.asked == 20
    assert store.most >= 3
