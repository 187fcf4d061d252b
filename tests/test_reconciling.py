"""Runs reported to a forge that keeps state: whatever it answers, it shows the right thing in the end, and once."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.report_turn import ReportTurn
from controller.reporting import Reporting
from dstack.forge.comment import marker
from dstack.forge.forge import Forge
from dstack.forge.opening import forge_at
from dstack.model.errors import Failed, Unavailable
from dstack.model.forge import ForgeKind, ForgeSettings
from dstack.model.settings import Settings
from dstack.model.status import Status
from dstack.model.world import Moment, RunView, World
from dstack.store.memory import MemoryStore
from dstack.store.saving import save
from dstack.store.scanning import Tree
from dstack.store.store import Store
from tests.forge_server import TOKEN, FakeForge, Fault, plain_http, serving
from tests.model_values import EPOCH, moment, world
from tests.reported_runs import COMMIT, RUNNING, done, job_of, view

ON = Settings(forge=ForgeSettings())
TRAIN = job_of()
WAITS, RUNS = view((TRAIN, None)), view((TRAIN, RUNNING))
ENDED = view((TRAIN, done()), verdict=Status.DONE)
PULL = view((TRAIN, RUNNING), pull=7)
PULL_ENDED = view((TRAIN, done()), verdict=Status.DONE, pull=7)
MARK = marker("repo")


@pytest.fixture(params=list(ForgeKind))
def fake(request: pytest.FixtureRequest) -> Iterator[FakeForge]:
    with serving(request.param) as forge:
        yield forge


@pytest.fixture
def hub() -> Iterator[FakeForge]:
    with serving() as forge:
        yield forge


@dataclass
class Desk:
    """A controller's reporter on a clock that the test moves."""

    fake: FakeForge
    token: str = TOKEN
    ticks: float = 0.0
    store: Callable[[str], Store] = lambda _: MemoryStore()
    http: httpx.Client = field(default_factory=lambda: plain_http(0.3))

    def __post_init__(self) -> None:
        self.turn = ReportTurn(
            open_forge=self.forge,
            open_store=self.store,
            jitter=lambda: 0.5,
        )

    def forge(self, _: ForgeSettings) -> Forge:
        """What was opened before may have been closed."""
        if self.http.is_closed:
            self.http = plain_http(0.3)
        return forge_at(self.fake.place, self.token, self.http)

    def now(self) -> Moment:
        return moment(100 + self.ticks)

    def step(self, *runs: RunView, settings: Settings = ON) -> float | None:
        return self.turn.step(world(*runs), settings, self.now())

    def settle(self, *runs: RunView, seconds: float = 30.0) -> None:
        """As often as it wants, for so long."""
        end = self.ticks + seconds
        for _ in range(200):
            due = self.step(*runs)
            if due is None or self.ticks + due > end:
                break
            self.ticks += due
        else:
            pytest.fail("it never rests")
        self.ticks = end


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(fake: FakeForge, **more: Any) -> Desk:  # noqa: ANN401 (as Desk has it)
        made.append(Desk(fake, **more))
        return made[-1]

    yield make
    for one in made:
        one.http.close()


Desks = Callable[..., Desk]


def test_a_run_is_pending_running_and_done_on_its_commit(fake: FakeForge, desks: Desks) -> None:
    desk = desks(fake)
    for run in (WAITS, WAITS, RUNS, RUNS, ENDED, ENDED):
        desk.settle(run)
    words = {
        ForgeKind.GITLAB: ["pending", "running", "success"],
        ForgeKind.GITHUB: ["pending", "pending", "success"],
        ForgeKind.GITEA: ["pending", "pending", "success"],
    }[fake.kind]
    assert fake.states(COMMIT) == [("dstack/train", word) for word in words]


def test_nothing_is_sent_without_the_setting(hub: FakeForge, desks: Desks) -> None:
    assert desks(hub).step(RUNS, settings=Settings()) is None
    assert hub.asked == []


def test_a_pull_request_has_one_comment_that_is_kept_up_to_date(fake: FakeForge, desks: Desks) -> None:
    desk = desks(fake)
    fake.say(7, f"{MARK}\nI am dstack", "eve")
    for run in (PULL, PULL, PULL_ENDED):
        desk.settle(run)
    eve, ours = fake.bodies(7)
    assert eve == f"{MARK}\nI am dstack"
    assert ours.startswith(MARK)
    assert "1 done" in ours


def test_a_comment_is_not_written_oftener_than_every_few_seconds(hub: FakeForge, desks: Desks) -> None:
    desk = desks(hub)
    for number in range(20):
        run = view((TRAIN, RUNNING), (job_of(n=str(number)), None), pull=7)
        for _ in range(3):
            desk.step(run)
        desk.ticks += 1
    assert 3 <= sum("comments" in line for line in hub.writes()) <= 5


def test_after_a_restart_the_forge_is_asked_before_anything_is_said_again(fake: FakeForge, desks: Desks) -> None:
    desks(fake).settle(PULL)
    before = fake.writes()
    desks(fake).settle(PULL)
    assert fake.writes() == before
    desks(fake).settle(PULL_ENDED)
    assert [state for _, state in fake.states(COMMIT)][-1] == "success"
    assert len(fake.bodies(7)) == 1


def test_killed_after_any_request_the_next_start_ends_right(hub: FakeForge, desks: Desks) -> None:
    desks(hub).settle(PULL_ENDED)
    whole = len(hub.asked)
    right = hub.states(COMMIT), hub.bodies(7)
    for cut in range(1, whole):
        with serving() as fake:
            first, asked = desks(fake), itertools.count(1)

            def breaking(request: httpx.Request, *, left: int = cut, asked: Iterator[int] = asked) -> None:
                if next(asked) > left:
                    raise KeyboardInterrupt(request.url.path)

            first.http.event_hooks = {"request": [breaking]}
            with pytest.raises(KeyboardInterrupt):
                first.settle(PULL_ENDED)
            desks(fake).settle(PULL_ENDED)
            assert (fake.states(COMMIT), fake.bodies(7)) == right


def test_two_controllers_leave_one_comment_and_the_right_status(fake: FakeForge, desks: Desks) -> None:
    one, two = desks(fake), desks(fake)
    for run in (PULL, PULL_ENDED):
        for _ in range(40):
            for desk in (one, two):
                desk.step(run)
                desk.ticks += 0.7
    assert len(fake.bodies(7)) == 1
    assert "1 done" in fake.bodies(7)[0]
    assert [state for _, state in fake.states(COMMIT)][-1] == "success"
    assert len(fake.states(COMMIT)) == 2


def test_two_that_wrote_at_the_same_moment_keep_the_older_comment(fake: FakeForge, desks: Desks) -> None:
    desk = desks(fake)
    first = fake.say(7, f"{MARK}\nof one", "dstack-bot")
    fake.say(7, f"{MARK}\nof another", "dstack-bot")
    desk.settle(PULL)
    assert [one["id"] for one in fake.comments[7]] == [first]
    assert "1 running" in fake.bodies(7)[0]


def test_what_a_slower_controller_wrote_last_is_put_right(hub: FakeForge, desks: Desks) -> None:
    desk = desks(hub)
    desk.settle(ENDED)
    desks(hub).settle(RUNS)
    assert hub.states(COMMIT)[-1] == ("dstack/train", "pending")
    desk.settle(ENDED, seconds=120)
    assert hub.states(COMMIT)[-1] == ("dstack/train", "success")


def test_a_token_of_an_app_knows_its_comment_by_its_own_kind(hub: FakeForge, desks: Desks) -> None:
    hub.users[TOKEN] = "dstack[bot]"
    hub.nobodies.add(TOKEN)
    hub.say(7, f"{MARK}\nI am dstack", "eve")
    for _ in range(2):
        desks(hub).settle(PULL)
    assert len(hub.bodies(7)) == 2


def test_a_comment_that_somebody_took_away_comes_again_with_the_next_news(hub: FakeForge, desks: Desks) -> None:
    desk = desks(hub)
    desk.settle(PULL)
    hub.comments[7].clear()
    desk.settle(PULL_ENDED)
    assert len(hub.bodies(7)) == 1


HUGE = Fault(status=200, body=b"x" * (10 * 1024 * 1024))


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=500)] * 4,
        [Fault(status=403, headers={"Retry-After": "40"})],
        [Fault(status=403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"})] * 2,
        [Fault(status=403, body=b'{"message": "You have exceeded a secondary rate limit"}')],
        [Fault(hang=True)] * 2,
        [Fault(status=200, body=b"<html>")] * 3,
        [HUGE],
        [Fault(status=302, headers={"Location": "https://evil.example.com/"})],
        [Fault(status=401)] * 2,
        [Fault(status=404)],
    ],
    ids=["5xx", "retry-after", "reset", "secondary", "hang", "garbage", "huge", "redirect", "401", "404"],
)
@pytest.mark.parametrize("failing", ["", "^(POST|PATCH) "], ids=["all", "writes"])
def test_whatever_a_forge_answers_it_shows_the_right_thing_later(
    hub: FakeForge, desks: Desks, faults: list[Fault], failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults, hub.failing = list(faults), failing
    desk = desks(hub)
    # The clock of the client is the real one: a wait that was asked for ends when we say so.
    desk.turn.open_forge = lambda _: _patient(desk)
    desk.settle(PULL, seconds=1200)
    desk.settle(PULL_ENDED, seconds=1200)
    assert hub.faults == []
    assert caplog.text.count("can't be reported") <= 2
    assert hub.states(COMMIT)[-1] == ("dstack/train", "success")
    assert len(hub.bodies(7)) == 1
    assert "1 done" in hub.bodies(7)[0]


def _patient(desk: Desk) -> Any:  # noqa: ANN401 (a Forge)
    forge = desk.forge(ForgeSettings())
    forge._client.ticks = lambda: desk.ticks  # type: ignore[attr-defined]
    return forge


def test_one_commit_that_the_forge_has_not_got_holds_up_nothing_else(hub: FakeForge, desks: Desks) -> None:
    hub.commits = {COMMIT}
    lost = view((TRAIN, RUNNING), name="slow-fox-2", commit="e" * 40)
    desk = desks(hub)
    desk.settle(lost, ENDED)
    assert hub.states(COMMIT) == [("dstack/train", "success")]
    assert sum("e" * 40 in line for line in hub.writes()) == 1


def test_a_token_that_is_not_enough_is_told_once_and_looked_for_again(
    hub: FakeForge, desks: Desks, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desks(hub, token="0ld")  # noqa: S106
    desk.settle(RUNS, seconds=500)
    assert len(hub.asked) < 8
    assert caplog.text.count("can't be reported") == 1
    desk.token = TOKEN
    desk.settle(RUNS, seconds=2000)
    assert hub.states(COMMIT) == [("dstack/train", "pending")]


def test_without_a_token_it_is_said_once_and_runs_go_on(
    hub: FakeForge, desks: Desks, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desks(hub)

    def none(_: ForgeSettings) -> Any:  # noqa: ANN401 (it only raises)
        msg = "there is no token"
        raise Failed(msg)

    desk.turn.open_forge = none
    desk.settle(RUNS, seconds=3600)
    assert caplog.text.count("there is no token") == 1


def test_metrics_stand_in_the_comment_also_when_the_store_was_away_at_first(
    hub: FakeForge, desks: Desks, tmp_path: Path
) -> None:
    store = MemoryStore()
    (tmp_path / "m.json").write_text('{"accuracy": 0.9375}')
    digest = save(store, Tree(root=tmp_path), ("m.json",)).digest
    away = [True]

    def opened(_: str) -> Store:
        if away.pop() if away else False:
            msg = "the store is away"
            raise Unavailable(msg)
        return store

    job = job_of(metrics=["m.json"])
    run = view((job, done(manifest=digest)), verdict=Status.DONE, pull=7)
    desk = desks(hub, store=opened)
    desk.settle(run)
    assert "accuracy" not in hub.bodies(7)[0]
    desk.settle(run, seconds=120)
    assert "| accuracy |" in hub.bodies(7)[0]
    assert "| 0.9375 |" in hub.bodies(7)[0]


def test_the_planted_token_is_in_no_log(hub: FakeForge, desks: Desks, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f'{{"message": "token {TOKEN} is bad"}}'.encode()
    hub.faults = [Fault(status=status, body=echo) for status in (500, 422, 404)]
    desk = desks(hub)
    desk.settle(PULL, seconds=1000)
    assert hub.bodies(7)
    assert TOKEN not in caplog.text + repr(desk.turn._reconciler)


def test_no_turn_waits_for_a_forge_that_hangs(hub: FakeForge) -> None:
    hub.faults = [Fault(hang=True)] * 3
    with plain_http(20) as http:
        turn = ReportTurn(
            open_forge=lambda _: forge_at(hub.place, TOKEN, http), open_store=lambda _: MemoryStore(), jitter=lambda: 0
        )
        reporting = Reporting(make=lambda: turn, clock=lambda: moment(100))
        seen = world(PULL)
        began = time.monotonic()
        for _ in range(1000):
            reporting.offer(seen, ON)
        assert time.monotonic() - began < 2
        reporting.stop()
        hub.released.set()
        _ended("reports")


def test_only_the_newest_picture_counts_and_a_mistake_ends_nothing() -> None:
    seen: list[World] = []
    first, goes_on = threading.Event(), threading.Event()

    class Slow:
        """Waits in its first step, which then fails."""

        def step(self, picture: World, _settings: Settings, _now: Moment) -> float | None:
            seen.append(picture)
            first.set()
            assert goes_on.wait(10)
            if len(seen) == 1:
                msg = "a mistake of ours"
                raise RuntimeError(msg)
            return None

        def close(self) -> None:
            seen.append(pictures[2])

    reporting = Reporting(make=Slow, least=0.0)
    pictures = [replace(world(RUNS), entropy=str(number)) for number in range(5)]
    for picture in pictures:
        reporting.offer(picture, ON)
        assert first.wait(10)
    goes_on.set()
    for _ in range(1000):
        if len(seen) > 1:
            break
        time.sleep(0.01)
    reporting.stop()
    _ended("reports")
    assert seen == [pictures[0], pictures[-1], pictures[2]]


def test_no_thread_begins_where_nothing_is_to_be_reported() -> None:
    reporting = Reporting(make=lambda: pytest.fail("nothing is to be done"))
    reporting.offer(world(RUNS), Settings())
    assert not any(thread.name == "reports" for thread in threading.enumerate())


def _ended(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(20)


def test_a_day_after_its_end_a_run_is_history(hub: FakeForge, desks: Desks) -> None:
    old = world(ENDED)
    late = Moment(wall=EPOCH + timedelta(days=2), ticks=5)
    assert desks(hub).turn.step(old, ON, late) is None
    assert hub.asked == []
