"""A runner's agent and all it talks to, in this process: stepped by hand, on a clock that a test moves."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec

from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.model.events import Ended, Started
from dstack.model.job import to_bytes
from dstack.model.observation import AppendNotes, Change, Observation, Pushed, SetAssignments
from dstack.model.personal import Layer
from dstack.model.pool import Capacity, Heartbeat, Phase, Registration
from dstack.model.refs import RunKey
from dstack.model.runspec import Desired
from dstack.model.world import Moment
from dstack.store.heartbeats import read_runners
from dstack.store.log_reader import LogReader
from dstack.store.memory import MemoryStore
from dstack.store.store import Sent, Source, Store, unwatched
from runner.agent import Agent
from runner.caches import Caches
from runner.disk import Space
from runner.executor import OUTPUT, Exit, Launch, Signal
from runner.facts import Given
from runner.folders import Folders
from runner.frames import STDOUT, Frame, pack
from runner.journal import Journal
from runner.lanes import Inline
from runner.profile import Profile
from runner.reports import Pace
from runner.supplied import Supply
from runner.tools import Tools
from tests.duties import BEGINNING, CAPACITY, REPOSITORY, RUN, wanting

NAME = "quick-owl"
RUN_KEY = RunKey.from_text(RUN)
STORE = "memory:"


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Fuse:
    """Burns at the `left`th time that something is written outside."""

    left: int | None = None
    burnt: int = 0

    def spend(self) -> None:
        """Another write."""
        self.burnt += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


@dataclass
class FakeExecutor:
    """Attempts end when the test says so (`end`), or at once if their workflow is in `ends`. They outlive agents."""

    name: str = "process"
    fuse: Fuse = field(default_factory=Fuse)
    ends: dict[str, Exit] = field(default_factory=dict)
    launches: dict[str, Launch] = field(default_factory=dict)
    exits: dict[str, Exit] = field(default_factory=dict)
    signals: list[tuple[str, Signal]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    pause: str = ""
    unlimited: tuple[str, ...] = ()

    def start(self, launch: Launch) -> None:
        """See Executor."""
        if self.adopt(launch):
            return
        self.fuse.spend()
        self.launches[launch.key] = launch
        self.started.append(launch.key)
        self.write(launch.key, f"hello from {launch.job.workflow}\n")
        (launch.tree / "out").write_text("result")
        if launch.job.workflow in self.ends:
            self.exits[launch.key] = self.ends[launch.job.workflow]
        self.fuse.spend()

    def write(self, key: str, text: str) -> None:
        """The commands print something."""
        with (self.launches[key].folder / OUTPUT).open("ab") as file:
            file.write(pack(Frame(STDOUT, 1_700_000_000.0, text.encode())))

    def end(self, key: str, code: int = 0) -> None:
        """The commands end."""
        self.exits[key] = Exit(exit_code=code)

    def adopt(self, launch: Launch) -> bool:
        """See Executor."""
        return launch.key in self.launches

    def exited(self, key: str) -> Exit | None:
        """See Executor."""
        return self.exits.get(key)

    def signal(self, key: str, signal: Signal) -> None:
        """See Executor. KILL always works."""
        self.signals.append((key, signal))
        if signal is Signal.KILL:
            self.exits.setdefault(key, Exit(exit_code=137, signal=9))

    def remove(self, key: str) -> None:
        """See Executor."""
        self.fuse.spend()
        self.launches.pop(key, None)
        self.exits.pop(key, None)

    def leftovers(self) -> tuple[str, ...]:
        """See Executor."""
        return tuple(self.launches)

    def gpus(self) -> dict[str, tuple[int, ...]]:
        """See Executor."""
        return {key: one.gpus for key, one in self.launches.items() if one.gpus and key not in self.exits}

    def close(self) -> None:
        """See Executor."""


@dataclass
class FakeTrees:
    """Checkouts that are empty folders. `trouble` is raised instead, if there is any."""

    folder: Path
    trouble: Exception | None = None
    claimed: list[Path] = field(default_factory=list)
    released: list[Path] = field(default_factory=list)
    trimmed: int = 0

    def claim(self, tree: Path) -> None:
        """See Trees."""
        self.claimed.append(tree)

    def checkout(self, key: RunKey, snapshot: str, _include: tuple[str, ...] = ()) -> Path:
        """See Trees."""
        if self.trouble:
            raise self.trouble
        assert (str(key), snapshot) == (RUN, "1" * 40)
        number = 0
        while (tree := self.folder / str(number)).exists():
            number += 1
        tree.mkdir(parents=True)
        return tree

    def release(self, tree: Path) -> None:
        """See Trees."""
        self.released.append(tree)

    def trim(self) -> None:
        """See Trees."""
        self.trimmed += 1


@dataclass
class FusedLedger:
    """A ledger that the process may die in, before or after a push, and that may be away."""

    inner: MemoryLedger
    fuse: Fuse
    away: bool = False
    unsure: bool = False

    def observe(self) -> Observation:
        """See Ledger."""
        if self.away:
            msg = "the remote is away"
            raise Unavailable(msg)
        return self.inner.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """See Ledger. `unsure`: it works, and nobody is told."""
        self.fuse.spend()
        pushed = self.inner.commit(changes, seen, atomic=atomic)
        self.fuse.spend()
        if self.unsure:
            msg = "the line broke while pushing"
            raise Unavailable(msg)
        return pushed

    def job(self, oid: str) -> bytes | None:
        """See Ledger."""
        return self.inner.job(oid)


class FusedStore:
    """A store that the process may die in, before or after a put."""

    def __init__(self, inner: MemoryStore, fuse: Fuse) -> None:
        self.url, self.width = inner.url, inner.width
        self._fuse = fuse
        self.get, self.open, self.head, self.list = inner.get, inner.open, inner.head, inner.list
        self.delete, self.now = inner.delete, inner.now
        self._put = inner.put

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        """See Store."""
        self._fuse.spend()
        done = self._put(key, data, if_absent=if_absent, sent=sent)
        self._fuse.spend()
        return done


@dataclass
class Office:
    """The world around one runner. Everything but the agent outlives a crash of the agent."""

    folder: Path
    ticks: float = 100.0
    store_away: bool = False
    fuse: Fuse = field(default_factory=Fuse)
    starts: int = 0
    instance: str = "us"
    host: str = "here"
    capacity: Capacity = CAPACITY
    takeover: bool = False
    pace: Pace = field(default_factory=Pace)
    executors: tuple[str, ...] = ("process",)
    space: Space | None = None
    supply: Supply = field(default_factory=Supply)
    volumes: dict[str, str] = field(default_factory=dict)
    own: tuple[Layer, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stores: dict[str, MemoryStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.remote = MemoryRemote(repository=REPOSITORY)
        self.executor = FakeExecutor(fuse=self.fuse)
        self.trees = FakeTrees(self.folder / "trees")
        self.objects = MemoryStore(clock=lambda: self.moment().wall, away=lambda: self.store_away)
        self.ledger = FusedLedger(MemoryLedger(self.remote), self.fuse)
        self.controller = MemoryLedger(self.remote)
        self.assigned: dict[str, Given] = {}
        self.agent = self.new_agent()

    def moment(self) -> Moment:
        """Now."""
        return Moment(wall=BEGINNING + timedelta(seconds=self.ticks), ticks=self.ticks)

    def open_store(self, url: str) -> Store:
        """The one store there is, unless others are among `stores`."""
        if url != STORE and self.stores:
            if url not in self.stores:
                msg = "there is no such place"
                raise Failed(msg)
            return FusedStore(self.stores[url], self.fuse)
        return FusedStore(self.objects, self.fuse)

    def new_agent(self) -> Agent:
        """Start the runner (again) on its state folder."""
        self.starts += 1
        tools = Tools(
            executors={"process": self.executor},
            workspaces=Folders(self.folder / "attempts", self.trees),
            open_store=self.open_store,
            lanes=Inline(),
            clock=self.moment,
            labels=self.labels,
            caches=Caches(self.folder / "caches"),
            supply=self.supply,
            volumes=self.volumes,
            space=lambda: self.space,
        )
        profile = Profile(
            registration=self.registration(), store=STORE, pace=self.pace, takeover=self.takeover, own=self.own
        )
        self.agent = Agent(profile, self.ledger, Journal(self.folder / "journal.json"), tools)
        return self.agent

    def registration(self) -> Registration:
        """What the runner will register; the store is not yet known."""
        return Registration(
            repository=REPOSITORY,
            runner=NAME,
            instance=self.instance,
            start=f"start-{self.starts}",
            host=self.host,
            capacity=self.capacity,
            executors=self.executors,
            store="",
            at=self.moment().wall,
        )

    def assign(self, *given: Given) -> None:
        """The controller assigns these, beside what is assigned."""
        for one in given:
            self.assigned[one.attempt.key] = one
        self._write()

    def unassign(self, key: str) -> None:
        """The controller takes one away."""
        del self.assigned[key]
        self._write()

    def want(self, key: str, desired: Desired) -> None:
        """The user wants it to stop."""
        self.assigned[key] = wanting(self.assigned[key], desired)
        self._write()

    def step(self, seconds: float = 0.0) -> float:
        """So much later, one step of everything."""
        self.ticks += seconds
        self.agent.wake()
        self.agent.heart.turn()
        return self.agent.step(self.moment())

    def settle(self, seconds: float = 1.0) -> None:
        """Let all happen that happens in so many seconds."""
        end = self.ticks + seconds
        while self.ticks < end and not self.agent.done:
            self.agent.wake()
            self.ticks += min(max(self._until_quiet(), 0.01), end - self.ticks)

    def _until_quiet(self) -> float:
        """All that happens now; seconds until there is more."""
        while True:
            pause = self.agent.step(self.moment())
            before = self.agent.heart.beats
            rest = self.agent.heart.turn()
            if self.agent.done or (pause > 0 and self.agent.heart.beats == before and not self._has_news()):
                return min(pause, rest)

    def _has_news(self) -> bool:
        """Whether attempts have ended that the agent takes for running: executors poke it then."""
        held = self.agent.held.values()
        return any(one.phase is Phase.RUNNING and one.key in self.executor.exits for one in held)

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Let happen what is to happen until something holds."""
        end = self.ticks + seconds
        while not condition():
            assert self.ticks < end, f"it didn't come to this: {dict(self.agent.held)}"
            self.settle(0.05)

    @property
    def registered(self) -> Registration | None:
        """The registration on the remote."""
        return self.controller.observe().runners.get(NAME)

    def told(self, one: Given) -> list[str]:
        """What the runner's note on the job says: the names of events, in the order of lines."""
        return [type(event).__name__.lower() for event in self.events(one)]

    def events(self, one: Given) -> list[Started | Ended]:
        """The runner's note on the job."""
        notes = self.controller.observe().notes_of(RUN_KEY, NAME)
        events = notes.on(one.oid).events if notes else ()
        return [event for event in events if isinstance(event, Started | Ended)]

    def claim(self, one: Given) -> Ended:
        """The only claim about an attempt."""
        (ended,) = (event for event in self.events(one) if isinstance(event, Ended))
        return ended

    def log(self, one: Given) -> tuple[str, bool]:
        """The log as a reader finds it, and whether it is closed."""
        reader = LogReader(self.objects, one.attempt.log)
        batch = reader.poll(whole=True)
        return b"".join(record.data for record in batch.records).decode(), batch.closed

    def heartbeat(self) -> Heartbeat:
        """The runner's heartbeat."""
        return read_runners(self.objects).seen[NAME, self.instance].heartbeat

    def _write(self) -> None:
        jobs = {key: one.oid for key, one in self.assigned.items()}
        blobs = {one.oid: to_bytes(one.job) for one in self.assigned.values() if isinstance(one.job, msgspec.Struct)}
        changes: list[Change] = [
            AppendNotes(key=RUN_KEY, writer=refs.CONTROLLER, events={}, jobs=blobs),
            SetAssignments(runner=NAME, attempts={key: one.attempt for key, one in self.assigned.items()}, jobs=jobs),
        ]
        assert self.controller.commit(changes, self.controller.observe(), atomic=True).won


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """For what happens in other threads and processes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
