"""Where pull requests go, as the forge says: nothing waits for it for long, and other pushes not at all."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from controller.pull_bases import PATIENCE, PullBases
from dstack.model.errors import Unavailable
from dstack.model.forge import ForgeSettings
from dstack.model.seen import Seen
from tests.triggers import CodeRemote, Memory, commit_id, started

RELEASE = "workflows: [{name: check, commands: [x], on: {pull-request: {branches: release}}}]"
MAIN = "workflows: [{name: check, commands: [x], on: {pull-request: {branches: main}}}]"
ON = ForgeSettings()


@dataclass
class FakeForge:
    open: dict[int, str] = field(default_factory=dict)
    asked: int = 0
    away: bool = False

    def bases(self, _settings: ForgeSettings) -> Mapping[int, str]:
        self.asked += 1
        if self.away:
            msg = "the forge hangs"
            raise Unavailable(msg)
        return dict(self.open)


@dataclass
class Desk:
    """A memory with a pull request, number 7, that is new; `work` is what waits to be done in the thread."""

    workflows: str
    forge: FakeForge = field(default_factory=FakeForge)
    work: list[Callable[[], None]] = field(default_factory=list)
    now: float = 100.0
    news: int = 0

    def __post_init__(self) -> None:
        self.memory = Memory(CodeRemote())
        self.memory.remote.push("main", "a")
        self.memory.turn()
        self.bases = PullBases(ask=self.forge.bases, told=self.told, clock=lambda: self.now, start=self.work.append)
        self.memory.remote.push("refs/pull/7/head", "b", self.workflows)

    def told(self) -> None:
        self.news += 1

    def turn(self, settings: ForgeSettings | None = ON) -> tuple[str, ...]:
        tips = self.bases.added(self.memory.remote.tips(), self.memory.seen, settings)
        remote = replace(self.memory.remote)
        remote.tips = lambda: tips  # type: ignore[method-assign]
        events = remote.look(self.memory.known, self.memory.now).events
        self.memory.write(*events)
        return started(*events)

    def answer(self) -> None:
        while self.work:
            self.work.pop(0)()


CHECKED = ("check pull-request refs/pull/7/head",)


def test_a_pull_request_waits_for_the_answer_and_a_push_does_not() -> None:
    desk = Desk(RELEASE, FakeForge({7: "release"}))
    desk.memory.remote.push("main", "c")
    assert desk.turn() == ("test push refs/heads/main",)
    assert desk.turn() == ()
    desk.answer()
    assert desk.news == 1
    assert desk.turn() == CHECKED
    assert desk.forge.asked == 1


def test_the_forge_is_asked_again_only_for_a_head_that_moved() -> None:
    desk = Desk(MAIN, FakeForge({7: "main"}))
    desk.turn()
    desk.answer()
    assert desk.turn() == CHECKED
    for _ in range(5):
        desk.turn()
    assert (desk.forge.asked, desk.work) == (1, [])
    desk.memory.remote.push("refs/pull/7/head", "d", MAIN)
    desk.forge.open[7] = "release"
    desk.turn()
    desk.answer()
    assert desk.turn() == (), "it goes elsewhere now"
    assert desk.forge.asked == 2


def test_a_forge_that_is_away_is_tried_again_and_then_the_default_branch_is_taken() -> None:
    desk = Desk(MAIN, FakeForge(away=True))
    for _ in range(10):
        assert desk.turn() == ()
        desk.answer()
    assert desk.forge.asked == 1, "not at every look"
    desk.now += 6.0
    desk.turn()
    desk.answer()
    assert desk.forge.asked == 2
    desk.now += PATIENCE
    assert desk.turn() == CHECKED


def test_a_forge_that_never_answers_holds_up_nothing_for_long() -> None:
    desk = Desk(MAIN)
    assert desk.turn() == ()
    desk.now += PATIENCE
    assert desk.turn() == CHECKED
    assert len(desk.work) == 1, "one question at a time"


def test_one_that_is_not_open_counts_as_into_the_default_branch() -> None:
    desk = Desk(MAIN, FakeForge({}))
    desk.turn()
    desk.answer()
    assert desk.turn() == CHECKED


def test_without_a_forge_in_the_settings_nobody_is_asked() -> None:
    desk = Desk(MAIN)
    assert desk.turn(None) == CHECKED
    assert desk.work == []


def test_a_mistake_of_ours_is_no_end_of_it() -> None:
    done = threading.Event()

    def broken(_settings: ForgeSettings) -> Mapping[int, str]:
        raise RuntimeError

    bases = PullBases(ask=broken, told=done.set)
    remote = CodeRemote()
    remote.push("main", "a")
    remote.push("refs/pull/7/head", "b")
    assert bases.added(remote.tips(), Seen(oid=commit_id("s")), ON).awaited == {7}
    assert done.wait(5.0)
