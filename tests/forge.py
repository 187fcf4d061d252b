"""A pool on a throttling forge, on a clock that a test moves: a real controller, real runners; pushes are counted."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

from controller.pulse import StorePulse
from controller.turn import Controller
from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import bucket, refs
from dstack.model.bucket import POLL_SECONDS, Reach
from dstack.model.observation import Change, Observation, Pushed, RunRecord, SetRegistration
from dstack.model.pool import Capacity, Registration
from dstack.model.refs import RunKey
from dstack.model.runspec import Code, RunSpec, Wanted
from dstack.model.views import Viewer
from dstack.model.world import Moment, RunView
from dstack.store.memory import MemoryStore
from runner.agent import Agent
from runner.caches import Caches
from runner.executor import Exit, Launch
from runner.folders import Folders
from runner.journal import Journal
from runner.lanes import Inline
from runner.profile import Profile
from runner.tools import Tools
from tests.agents import FakeExecutor
from tests.duties import BEGINNING, REPOSITORY

TICK = 0.1
POLL = POLL_SECONDS[Reach.FORGE]
SLOTS = 4
ROOT = "5ab98f2089ae" + "0" * 28


@dataclass
class CountingLedger:
    """One party's way to the remote. A push of registrations alone is not counted."""

    inner: MemoryLedger
    who: str
    pushes: Counter[str]

    def observe(self) -> Observation:
        return self.inner.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        if changes and not all(isinstance(change, SetRegistration) for change in changes):
            self.pushes[self.who] += 1
        return self.inner.commit(changes, seen, atomic=atomic)

    def job(self, oid: str) -> bytes | None:
        return self.inner.job(oid)


@dataclass
class TimedExecutor(FakeExecutor):
    """Each attempt ends well, after at most `longest` seconds."""

    forge: "Forge | None" = None
    longest: float = 5.0
    until: dict[str, float] = field(default_factory=dict)

    def start(self, launch: Launch) -> None:
        super().start(launch)
        assert self.forge
        self.until.setdefault(launch.key, self.forge.ticks + self.forge.random.uniform(0.5, 1.0) * self.longest)

    def exited(self, key: str) -> Exit | None:
        assert self.forge
        return Exit(exit_code=0) if self.forge.ticks >= self.until.get(key, float("inf")) else super().exited(key)


@dataclass
class EmptyTrees:
    """Checkouts are empty folders."""

    folder: Path
    made: int = 0

    def claim(self, tree: Path) -> None:
        """Nothing survives here."""

    def checkout(self, _key: RunKey, _snapshot: str, _include: tuple[str, ...]) -> Path:
        self.made += 1
        tree = self.folder / str(self.made)
        tree.mkdir(parents=True)
        return tree

    def trim(self) -> None:
        """Nothing is kept here."""

    def release(self, tree: Path) -> None:
        shutil.rmtree(tree)


@dataclass
class Forge:
    """`folder` is for the runners' state; `longest`: how long a job takes at most."""

    folder: Path
    runners: int
    seed: int = 0
    longest: float = 5.0
    ticks: float = 1000.0
    pushes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.remote = MemoryRemote(repository=REPOSITORY)
        self.remote.refs[refs.CONFIG] = (self.remote.new_id(), b"throttle: forge\n")
        self.store = MemoryStore(clock=lambda: self.moment().wall)
        self.agents = [self._agent(f"runner-{number}") for number in range(self.runners)]
        interval, burst = bucket.LOCAL
        self.controller = Controller(
            ledger=self._ledger("controller"),
            pulse=StorePulse(controller="c", own=self.store.url, open_store=lambda _: self.store),
            store=self.store.url,
            entropy=lambda: f"{self.random.getrandbits(128):032x}",
            jitter=self.random.random,
            bucket=bucket.Bucket.full(interval=interval, burst=burst, now=self.ticks),
        )
        self._polls = {agent: self.ticks + self.random.uniform(0, POLL) for agent in self.agents}
        self._decides = self.ticks
        self._controller_polls = self.ticks + self.random.uniform(0, POLL)

    def moment(self) -> Moment:
        return Moment(wall=BEGINNING + timedelta(seconds=self.ticks), ticks=self.ticks)

    def submit(self, workflows: bytes) -> None:
        """A user's push."""
        spec = RunSpec(
            repository=REPOSITORY,
            run="fast-rabbit-1",
            workflow="a",
            code=Code(commit="c" * 40, snapshot="d" * 40),
            submitted_by="ada",
            submitted_at=self.moment().wall,
            nonce="n",
        )
        record = RunRecord(
            name=spec.run, tip=ROOT, root=ROOT, spec=spec, wanted=Wanted(), workflows=workflows, variables=None
        )
        self.remote.add_run(record)
        self.pushes["user"] += 1

    def view(self) -> RunView:
        ledger = MemoryLedger(self.remote)
        return next(iter(Viewer(ledger.job).views(ledger.observe())))

    def let_pass(self, seconds: float) -> None:
        """Everybody does what is due."""
        end = self.ticks + seconds
        while self.ticks < end:
            self.ticks += TICK
            for agent in self.agents:
                self._step(agent)
            self._decide()

    def seconds_to_the_end(self, most: float) -> float:
        """How long the run takes from now."""
        begin = self.ticks
        while not self.view().state.finished:
            assert self.ticks < begin + most, (self.pushes, self.ticks - begin)
            self.let_pass(1.0)
        return self.ticks - begin

    def _step(self, agent: Agent) -> None:
        if self.ticks >= self._polls[agent]:
            self._polls[agent] = self.ticks + POLL * self.random.uniform(0.8, 1.2)
            agent.wake()
        while agent.step(self.moment()) == 0:
            pass
        agent.heart.turn()

    def _decide(self) -> None:
        if self.ticks >= min(self._controller_polls, self._decides):
            if self.ticks >= self._controller_polls:
                self._controller_polls = self.ticks + POLL * self.random.uniform(0.8, 1.2)
            wait = self.controller.step(self.moment())
            self._decides = float("inf") if wait is None else self.ticks + max(wait, TICK)

    def _ledger(self, who: str) -> CountingLedger:
        return CountingLedger(MemoryLedger(self.remote), who, self.pushes)

    def _agent(self, name: str) -> Agent:
        tools = Tools(
            executors={"process": TimedExecutor(forge=self, longest=self.longest)},
            workspaces=Folders(self.folder / name / "attempts", EmptyTrees(self.folder / name / "trees")),
            open_store=lambda _: self.store,
            lanes=Inline(),
            clock=self.moment,
            labels={},
            caches=Caches(self.folder / name / "caches"),
        )
        registration = Registration(
            repository=REPOSITORY,
            runner=name,
            instance=f"{name}-1",
            start="start",
            host=name,
            capacity=Capacity(cpu=float(SLOTS), memory=2**30),
            executors=("process",),
            store="",
            at=self.moment().wall,
        )
        profile = Profile(registration=registration, store=self.store.url)
        return Agent(profile, self._ledger(name), Journal(self.folder / name / "journal.json"), tools)
