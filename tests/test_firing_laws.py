"""Exactly once: whatever is pushed, missed, lost half-way or done by two at once, each tip that is seen fires once."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from enum import Enum, auto

from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.model.codec import encode
from dstack.model.cron import next_slot
from dstack.model.firing import Event, Fired
from dstack.model.seen import Seen, from_files, joined, schedule_path, to_files
from dstack.model.triggers import Schedule
from tests.triggers import NOW, CodeRemote, Memory, commit_id

BRANCHES = ("main", "x", "y", "x/z")


class Step(Enum):
    PUSH = auto()
    DELETE = auto()
    TURN = auto()  # all goes well
    LOST = auto()  # the push came to nothing
    HALF = auto()  # its server crashed: some runs are there, and the memory is the old one
    RACE = auto()  # another controller looked at the same time, and writes second: its push is refused whole
    PART = auto()  # only the first events were written, and nothing of what can wait
    FIRST = auto()  # its server crashed: the memory has moved, and only some runs are there


SOUND = [Step.PUSH, Step.PUSH, Step.PUSH, Step.DELETE, Step.TURN, Step.LOST, Step.RACE, Step.FIRST]


STEPS = st.tuples(
    st.sampled_from([Step.PUSH, Step.PUSH, *(step for step in Step if step is not Step.FIRST)]),
    st.sampled_from(BRANCHES),
    st.integers(0, 3),
)


class World:
    """A remote where each push is a new commit, and the runs that stand, by key."""

    def __init__(self) -> None:
        self.remote = CodeRemote()
        self.memory = Memory(self.remote)
        self.runs: dict[str, tuple[str, str]] = {}
        self.expected: set[tuple[str, str]] = set()
        self.pushed = 0
        self.push("main")
        self.memory.turn()

    def push(self, branch: str) -> None:
        for other in [ref for ref in self.remote.refs if clash(ref, f"refs/heads/{branch}")]:
            del self.remote.refs[other]
        self.pushed += 1
        self.remote.push(branch, f"commit {self.pushed}")

    def delete(self, branch: str) -> None:
        if branch != "main":
            self.remote.refs.pop(f"refs/heads/{branch}", None)

    def make(self, *events: Event) -> None:
        for event in events:
            for run in event.runs:
                self.runs[run.trigger.key] = (run.trigger.ref, run.trigger.commit)

    def step(self, step: Step, branch: str, some: int) -> None:
        if step is Step.PUSH:
            self.push(branch)
        elif step is Step.DELETE:
            self.delete(branch)
        else:
            self.look(step, self.events(), some)

    def events(self) -> tuple[Event, ...]:
        """As a controller sees it that knows nothing but the memory and the runs there are."""
        lost = self.memory.known.missing(self.runs.keys())
        return self.remote.look(self.memory.known.rolled_back(lost), self.memory.now).events

    def look(self, step: Step, events: tuple[Event, ...], some: int) -> None:
        if step is Step.HALF:
            self.make(*events[:some])
        elif step is Step.FIRST:
            self.remember(*events)
            self.make(*events[:some])
        elif step is Step.PART:
            self.write(*[event for event in events[: some + 1] if not event.can_wait])
        elif step is Step.TURN:
            self.write(*events)
        elif step is Step.RACE:
            self.write(*events)
            assert self.events() == (), "the loser looks again, and finds nothing to do"

    def write(self, *events: Event) -> None:
        self.remember(*events)
        self.make(*events)

    def remember(self, *events: Event) -> None:
        """In the push that makes those of the runs that there aren't."""
        lost = self.memory.known.missing(self.runs.keys())
        memory = self.memory.known.rolled_back(lost)
        new = {run.trigger.key for event in events for run in event.runs} - self.runs.keys()
        self.memory.write(*(event.making(new, memory) for event in events))

    def finish(self) -> None:
        self.look(Step.TURN, self.events(), 0)
        assert self.events() == ()
        assert not self.memory.known.missing(self.runs.keys())
        assert self.memory.known.marks == {
            ref.removeprefix("refs/"): oid for ref, oid in self.remote.refs.items() if ref.startswith("refs/heads/")
        }


def clash(one: str, other: str) -> bool:
    """Whether two names can't be branches at once."""
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=25))
def test_every_tip_that_is_seen_fires_exactly_once(steps: list[tuple[Step, str, int]]) -> None:
    world = World()
    for step, branch, some in steps:
        if step not in {Step.HALF, Step.PART}:
            tips = set(world.remote.refs.items())
            world.step(step, branch, some)
            if step in {Step.TURN, Step.RACE}:
                world.expected |= tips
    world.expected |= set(world.remote.refs.items())
    world.finish()
    first = ("refs/heads/main", commit_id("commit 1"))
    assert Counter(world.runs.values()) == Counter(world.expected - {first})


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=25))
def test_a_push_of_which_half_survived_or_a_part_was_sent_doubles_nothing(steps: list[tuple[Step, str, int]]) -> None:
    """What half of a push left is found again under its key as long as nothing else was written in between."""
    world = World()
    half = False
    for step, branch, some in steps:
        world.step(Step.TURN if half and step is Step.PART else step, branch, some)
        half = step is Step.HALF or (half and step in {Step.PUSH, Step.DELETE, Step.LOST})
    world.finish()
    assert max(Counter(world.runs.values()).values(), default=1) == 1
    last = set(world.remote.refs.items()) - {("refs/heads/main", commit_id("commit 1"))}
    assert last <= set(world.runs.values())


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(SOUND), st.sampled_from(BRANCHES), st.integers(0, 3)), max_size=25))
def test_a_push_of_which_only_the_memory_survived_loses_and_doubles_nothing(
    steps: list[tuple[Step, str, int]],
) -> None:
    """As often as it happens, and whatever is pushed meanwhile. What moves on before it is seen starts once, later."""
    world = World()
    for step, branch, some in steps:
        world.step(step, branch, some)
    world.finish()
    assert max(Counter(world.runs.values()).values(), default=1) == 1
    last = set(world.remote.refs.items()) - {("refs/heads/main", commit_id("commit 1"))}
    assert last <= set(world.runs.values())


GAPS = st.lists(st.integers(0, 5000).map(lambda seconds: timedelta(seconds=seconds)), max_size=20)


@settings(max_examples=60)
@given(st.sampled_from(["*/20 * * * *", "0 * * * *", "7,8 */2 * * *"]), GAPS, st.lists(st.booleans(), max_size=20))
def test_every_slot_fires_at_most_once_and_a_turn_after_one_fires(
    cron: str, gaps: list[timedelta], lost: list[bool]
) -> None:
    schedule = Schedule(cron=cron)
    memory = Memory(CodeRemote())
    memory.remote.push("main", "a", f"workflows: [{{name: w, commands: [x], on: {{schedule: '{cron}'}}}}]")
    memory.turn()
    memory.turn()
    slots: list[str | None] = []
    evaluated = NOW
    for number, gap in enumerate(gaps):
        memory.now += gap
        events = memory.events()
        missed = next_slot(schedule, evaluated) <= memory.now
        assert len([run for event in events for run in event.runs]) == (1 if missed else 0)
        if not (number < len(lost) and lost[number]):
            slots += [run.trigger.slot for event in events for run in event.runs]
            memory.write(*events)
            evaluated = memory.now
    assert slots == sorted(set(filter(None, slots)))


def made(place: str) -> bytes:
    """That runs at this place were made, which are not there."""
    return encode({"keys": ["k"], "before": {place: None}, "against": None})


ZONED = "{cron: '5 * * * *', zone: America/New_York}"
SOME = f"workflows: [{{name: w, commands: [x], on: {{push: , pull-request: , schedule: {ZONED}}}}}]"
HOURLY = schedule_path("w", Schedule(cron="5 * * * *", zone="America/New_York"))
PLACES = ["heads/main", "heads/x", "heads/x/y", "tags/v1", "pulls/7", HOURLY, "schedule/old.0123456789ab", "?", ""]
TEXTS = [commit_id("commit a").encode(), commit_id("b").encode(), b"2026-11-23T11:05:00Z", b"2000-01-01T00:00:00Z"]
TEXTS += [made(place) for place in PLACES if place]
TEXTS += [b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00Z", b'{"mark":"x","reason":"y","refusals":9}', b"\xff", b""]
REFS = ["refs/heads/main", "refs/heads/x/y", "refs/tags/v1", "refs/pull/7/head", "refs/heads/dstack/runs/x", "odd"]
TREES = st.dictionaries(
    st.sampled_from([*PLACES, *(f"{kind}/{place}" for kind in ("troubles", "made") for place in PLACES)]),
    st.sampled_from(TEXTS),
    max_size=8,
)


@given(TREES, st.sets(st.sampled_from(REFS)), st.sampled_from([SOME, "workflows: 3", None]))
def test_whatever_the_memory_holds_is_put_right_in_a_turn(
    tree: dict[str, bytes], refs: set[str], file: str | None
) -> None:
    memory = Memory(CodeRemote())
    for ref in sorted(refs | {"refs/heads/main"}):
        memory.remote.push(ref, "commit a", file)
    seen = from_files(tree, commit_id("seen"))
    memory.seen = seen.rolled_back(seen.missing(frozenset()))
    events = [event.making({run.trigger.key for run in event.runs}, memory.seen) for event in memory.events()]
    written = {**to_files(memory.seen), **dict.fromkeys(memory.seen.unreadable, b"?")}
    written |= {path: text or b"" for path, text in joined(event.move for event in events).files().items()}
    memory.write(*events)
    memory.seen = replace(memory.known, lost=frozenset())
    assert memory.events() == ()
    again = from_files({path: text for path, text in written.items() if text})
    assert (again.marks, again.troubles, again.faults) == (memory.known.marks, memory.known.troubles, ())
    keys = {run.trigger.key for event in events for run in event.runs}
    assert not memory.known.missing(keys), "what got lost is made again, or forgotten"


def test_two_memories_never_make_the_same_keys() -> None:
    """A ref that comes back to a commit fires again, since the memory has moved meanwhile."""
    memory = Memory(CodeRemote())
    memory.remote.push("main", "a")
    memory.turn()
    memory.remote.push("main", "b")
    keys = {run.trigger.key for oid in "123" for run in keyed(memory, oid)}
    assert len(keys) == 3


def keyed(memory: Memory, oid: str) -> list[Fired]:
    seen = Seen(oid=commit_id(oid), marks=memory.known.marks)
    return [run for event in memory.remote.look(seen).events for run in event.runs]
