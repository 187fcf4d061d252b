from datetime import UTC, datetime, timedelta

import pytest

from dstack.model import keys
from dstack.model.codec import encode
from dstack.model.errors import Invalid, Unavailable
from dstack.model.pool import Capacity, Heartbeat, Phase
from dstack.store.heartbeats import (
    LIMIT,
    ControllerHeartbeat,
    delete_runner,
    home,
    read_controllers,
    read_runners,
    write_controller,
    write_runner,
)
from dstack.store.memory import MemoryStore

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
