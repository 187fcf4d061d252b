"""A pool in one process on a fake clock: real controllers and the real duty, users, faults; and what must always hold.

`python -m tests.simulation --seeds 1000` plays that many; a seed that fails prints itself and is played again by
`python -m tests.simulation --seed N --verbose`.
"""

import argparse
import heapq
import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import msgspec

from controller.cache import StoreCache
from controller.pulse import StorePulse
from controller.turn import Controller
from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import bucket, refs
from dstack.model.errors import Unavailable
from dstack.model.gpus import Gpu
from dstack.model.observation import (
    AppendNotes,
    Change,
    DeleteRef,
    Observation,
    RunRecord,
    SetAssignments,
    SetWanted,
)
from dstack.model.pool import Capacity, Phase, RunnerState
from dstack.model.refs import RunKey
from dstack.model.resuming import why_not
from dstack.model.runspec import Code, Desired, RunSpec, Wanted
from dstack.model.status import Status
from dstack.model.views import Viewer
from dstack.model.world import Moment
from dstack.store.memory import MemoryStore
from runner.held import Held
from tests import simulated_code
from tests.model_values import ended, moment
from tests.simulated_code import LookedAt
from tests.simulated_remote import Crash, Faults, SimulatedLedger
from tests.simulated_runner import Machine, SimulatedRunner
from tests.simulation_laws import broken_laws
from tests.triggers import CodeRemote

CALM_AT = 600.0
STOP_AT = CALM_AT + 300.0
DEADLINE = STOP_AT + 3_000.0

WORKFLOWS = (
    b"workflows: [{name: a, commands: x}]",
    b"""workflows:
- {name: a, commands: x}
- {name: b, commands: x, depends-on: [a]}
- {name: c, commands: x, depends-on: [b]}
""",
    b"""workflows:
- {name: a, commands: x}
- {name: b, commands: x, depends-on: [a], retry: 2}
- {name: c, commands: x, depends-on: [a], timeout: 30s, stop-grace: 3s}
- {name: d, commands: x, depends-on: [b, c]}
""",
    b"workflows: [{name: a, commands: x, matrix: {n: [1, 2, 3, 4]}, retry: {attempts: 1, backoff: 20s}}]",
    b"""workflows:
- {name: a, commands: x, resources: {cpu: 2}}
- {name: b, commands: x, depends-on: [a], resources: {cpu: 3}}
""",
    b"workflows: [{name: a}]",
    b"workflows: [{name: a, commands: x, matrix: {n: [1, 2, 3]}, resources: {cpu: 0.1, gpu: 1}}]",
)


@dataclass(slots=True, kw_only=True)
class Home:
    """A host of one daemon: the process that runs on it, if any, and its clock's offset."""

    name: str
    offset: float
    make: Callable[["Home"], "Controller | SimulatedRunner"]
    alive: "Controller | SimulatedRunner | None" = None
    busy: bool = False
    version: int = 0


@dataclass(slots=True)
class Simulation:
    """One seed's world."""

    seed: int
    verbose: bool = False
    leased: bool = True
    now: float = 0.0
    steps: int = 0
    random: Random = field(init=False)
    faults: Faults = field(init=False)
    remote: MemoryRemote = field(default_factory=lambda: MemoryRemote(repository="repo"))
    code: CodeRemote = field(default_factory=CodeRemote)
    pushed: set[str] = field(default_factory=set)
    store: MemoryStore = field(init=False)
    homes: list[Home] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    gone: Counter[simulated_code.Start] = field(default_factory=Counter)
    stopping: bool = False
    drained: int = 0
    emptied: int = 0
    resumed: int = 0
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _away: dict[str, tuple[float, float]] = field(default_factory=dict)
    _judge: tuple[MemoryLedger, Viewer] | None = None

    def __post_init__(self) -> None:
        """Everything follows from the seed."""
        self.random = Random(self.seed)
        chance = self.random.choice([0.0, 0.02, 0.1])
        self.faults = Faults(crash=chance / 2, cut=chance, answer_lost=chance, torn=chance, race=chance * 2)
        self.store = MemoryStore(clock=lambda: self.moment(0.0).wall)
        self._people()
        for number in range(self.random.randint(1, 3)):
            self._home(f"controller-{number}", self._controller)
        for number in range(self.random.randint(1, 4)):
            self._machine(f"runner-{number}", self.random.choice([1.0, 2.0, 3.0]))
        self._machine("runner-strong", 4.0)
        self._troubles()

    def play(self) -> list[str]:
        """Until every run has ended, or it is clear that one never will. Answers with the laws broken."""
        while self._agenda and self.now < DEADLINE:
            self.now, _, act = heapq.heappop(self._agenda)
            self.steps += 1
            act()
            if self.now > CALM_AT and self._all_quiet() and self._all_started():
                break
        clashes = [clash for machine in self.machines.values() for clash in machine.clashes]
        return (
            self.problems
            + clashes
            + list(simulated_code.broken_laws(self.remote, self.code, self.pushed, self.gone))
            + broken_laws(self.remote, self.deleted, self.machines.values(), finished=self._all_quiet())
        )

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._agenda, (max(when, self.now), next(self._order), act))

    def moment(self, offset: float) -> Moment:
        """Now, by a clock that is off."""
        return Moment(wall=moment(self.now + offset).wall, ticks=self.now + offset)

    def say(self, sentence: str) -> None:
        """For a person who looks into a seed."""
        if self.verbose:
            sys.stdout.write(f"{self.now:9.2f} {sentence}\n")

    # people

    def _people(self) -> None:
        for number in range(self.random.randint(2, 7)):
            when = self.random.uniform(0, 200)
            self.at(when, lambda name=f"run-{number}": self._submit(name))  # type: ignore[misc]
        self.code.push("main", "the first commit", simulated_code.ON_PUSH)
        simulated_code.begun(self.remote, self.code)
        for _ in range(self.random.randint(0, 3)):
            self.at(self.random.uniform(0, 300), self._push)

    def _push(self) -> None:
        """A commit comes to a branch of the code."""
        branch = self.random.choice(["main", "main", "topic"])
        self.code.push(branch, f"commit {self.steps}", simulated_code.ON_PUSH)
        self.pushed.add(branch)
        self.say(f"user: pushes {branch}")
        self._changed()

    def _submit(self, name: str) -> None:
        root = f"{self.random.getrandbits(160):040x}"
        text = self.random.choice(WORKFLOWS)
        last = {0: "a", 1: "c", 2: "d", 3: "a", 4: "b", 5: "a", 6: "a"}[WORKFLOWS.index(text)]
        spec = RunSpec(
            repository="repo",
            run=name,
            workflow=last,
            code=Code(commit="c" * 40, snapshot="d" * 40, contents=self._contents()),
            submitted_by="ada",
            submitted_at=self.moment(0.0).wall,
            nonce=root,
        )
        record = RunRecord(name=name, tip=root, root=root, spec=spec, wanted=Wanted(), workflows=text, variables=None)
        self.remote.add_run(record)
        self.say(f"user: submits {name}")
        self._changed()
        if self.random.random() < 0.4:
            self.at(self.now + self.random.expovariate(1 / 30), lambda: self._stop(name))

    def _contents(self) -> dict[str, str]:
        """The digests of the workflows' files: often the same as those of another run, sometimes not known."""
        if self.random.random() < 0.2:
            return {}
        return {name: self.random.choice("1112") for name in "abcd"}

    def _stop(self, name: str) -> None:
        _, record = self.remote.refs.get(refs.run_branch(name), ("", None))
        if not isinstance(record, RunRecord):
            return
        desired = self.random.choice([Desired.STOP, Desired.ABORT])
        change: Change = SetWanted(
            run=name, wanted=msgspec.structs.replace(record.wanted, root=record.root, desired=desired)
        )
        if self.random.random() < 0.15 and not self.stopping:
            change = DeleteRef(ref=refs.run_branch(name))
            self.deleted.add(name)
        self.say(f"user: {change}")
        ledger = self._ledger(Home(name="user", offset=0.0, make=self._controller), Faults())
        try:
            seen = ledger.observe()
            pushed = ledger.commit([change], seen, atomic=True)
        except Unavailable:
            self.deleted.discard(name)
            self.at(self.now + 5.0, lambda: self._stop(name))
        else:
            if name in self.deleted and pushed.won:
                self.gone += simulated_code.settled(record, seen)

    def resume(self) -> None:
        """A user has a run go on that has ended, if there is one, from what it saved or from nothing."""
        ledger = self._ledger(Home(name="user", offset=0.0, make=self._controller), Faults())
        try:
            seen = ledger.observe()
        except Unavailable:
            return
        views = [view for view in Viewer(self.remote.blobs.get).views(seen) if why_not(view) is None]
        able = [view for view in views if view.wanted.generation == view.state.generation]
        if not able or self.stopping:
            return
        view = self.random.choice(able)
        clean = self.random.random() < 0.5
        wanted = Wanted(root=view.root, generation=view.state.generation + 1, clean=clean)
        with suppress(Unavailable):
            ledger.commit([SetWanted(run=view.key.name, wanted=wanted)], seen, atomic=True)
            self.resumed += 1
            self.at(self.now + self.random.expovariate(1 / 30), lambda: self._stop(view.key.name))

    # daemons

    def _home(self, name: str, make: Callable[[Home], Controller | SimulatedRunner]) -> None:
        home = Home(name=name, offset=self.random.uniform(0, 10_000), make=make)
        self.homes.append(home)
        self.at(self.random.uniform(0, 20), lambda: self._start(home))

    def _machine(self, name: str, cpu: float) -> None:
        gpus = tuple(Gpu(index=index, name="T4", memory=2**30) for index in range(2 if cpu > 1 else 0))
        capacity = Capacity(cpu=cpu, memory=2**30, gpus=gpus)
        self.machines[name] = Machine(name=name, instance=f"{name}-1", capacity=capacity)
        self._home(name, self._runner)

    def _ledger(self, home: Home, faults: Faults) -> SimulatedLedger:
        return SimulatedLedger(
            remote=self.remote,
            random=self.random,
            faults=faults,
            away=lambda: self._is_away("remote") or self._is_away(home.name),
            others=lambda: self._somebody_else(home),
            changed=self._changed,
            judge=self._placed,
            leased=self.leased,
        )

    def _controller(self, home: Home) -> Controller:
        store = self.store.seen_by(lambda: self._is_away("store") or self._is_away(home.name))
        interval, burst = bucket.LOCAL
        code = LookedAt(self.code, away=lambda: self._is_away("store") or self._is_away(home.name))
        return Controller(
            triggers=simulated_code.triggering(code, self._entropy, self.random.random),
            ledger=self._ledger(home, self.faults),
            pulse=StorePulse(controller=home.name, own=store.url, open_store=lambda _: store),
            cache=StoreCache(open_store=lambda _: store, clock=lambda: self.now),
            store=store.url,
            entropy=self._entropy,
            jitter=self.random.random,
            bucket=bucket.Bucket.full(interval=interval, burst=burst, now=self.now + home.offset),
        )

    def _entropy(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    def _runner(self, home: Home) -> SimulatedRunner:
        store = self.store.seen_by(lambda: self._is_away("store") or self._is_away(home.name))
        return SimulatedRunner(
            machine=self.machines[home.name],
            ledger=self._ledger(home, self.faults),
            store=store,
            random=self.random,
            start=f"{self.random.getrandbits(64):016x}",
            on_start=self._job_starts,
            is_paused=lambda: self.now < self.machines[home.name].paused_until,
        )

    def _start(self, home: Home) -> None:
        if home.alive is None:
            self.say(f"{home.name}: starts")
            home.alive = home.make(home)
            self._step(home)

    def _step(self, home: Home) -> None:
        """One step of a daemon; while it is at it, nobody steps it again."""
        if home.alive is None or home.busy:
            return
        home.busy = True
        home.version += 1
        try:
            due = self._due(home, home.alive)
        except Crash:
            self.say(f"{home.name}: crashes")
            home.alive = None
            self.at(self.now + self.random.expovariate(1 / 40), lambda: self._start(home))
            return
        finally:
            home.busy = False
        if isinstance(home.alive, SimulatedRunner) and home.alive.done:
            self.say(f"{home.name}: has drained")
            home.alive, self.drained = None, self.drained + 1
            self.at(self.now + self.random.expovariate(1 / 60), lambda: self._start(home))
            return
        version = home.version
        self.at(due, lambda: self._step(home) if home.version == version else None)

    def _due(self, home: Home, daemon: Controller | SimulatedRunner) -> float:
        now = self.moment(home.offset)
        if isinstance(daemon, SimulatedRunner):
            return daemon.step(now) - home.offset
        wait = daemon.step(now)
        return self.now + min(15.0, 15.0 if wait is None else max(wait, 0.001))

    def _changed(self) -> None:
        """Wake everybody soon; now and then somebody misses it."""
        for home in self.homes:
            if self.random.random() < 0.9:
                self.at(self.now + self.random.uniform(0.01, 0.2), lambda home=home: self._step(home))  # type: ignore[misc]

    def _somebody_else(self, than: Home) -> None:
        others = [home for home in self.homes if home is not than and home.alive and not home.busy]
        if others:
            self._step(self.random.choice(others))

    def _placed(self, changes: Sequence[Change], seen: Observation) -> None:
        """Nothing new is placed where a drain has been announced."""
        for change in changes:
            if not isinstance(change, SetAssignments) or change.runner not in seen.runners:
                continue
            there, state = seen.assignments.get(change.runner), seen.runners[change.runner].state
            new = set(change.attempts) - set(there.attempts if there else ())
            if new and state is not RunnerState.LIVE:
                self.problems.append(f"{sorted(new)} are placed on {change.runner}, which is {state}")

    def _job_starts(self, held: Held) -> None:
        """Nothing starts before what it needs is finished, by what the remote says at that moment."""
        self.starts.append(held.key)
        key = RunKey.from_text(held.attempt.run)
        ledger = self._ledger(Home(name="judge", offset=0.0, make=self._controller), Faults())
        ledger.away = lambda: False
        views = {view.key: view for view in Viewer(ledger.job).views(ledger.observe())}
        if key not in views:
            return
        state = views[key].state
        for need in held.job.needs:
            if str(state.job(need.job).outcome) != "DONE":
                self.problems.append(f"{held.key} of {key} starts, but {need.job} is {state.job(need.job).outcome}")

    # troubles

    def _troubles(self) -> None:
        kinds = [self._outage, self._power_cut, self._wipe, self._amnesia, self._lie, self._lie, self._pause]
        kinds += [self.drain, self.drain]
        for _ in range(self.random.randint(0, 8)):
            self.at(self.random.uniform(10, 350), self.random.choice(kinds))
        self.at(STOP_AT, self._stop_all)
        self.at(CALM_AT, self._calm)

    def _outage(self) -> None:
        who = self.random.choice(["remote", "store", *(home.name for home in self.homes)])
        self._away[who] = (self.now, self.now + self.random.expovariate(1 / 90))
        self.say(f"{who}: away until {self._away[who][1]:.0f}")

    def _power_cut(self) -> None:
        """A machine dies with everything on it but its disk; perhaps it comes back."""
        home = self.random.choice(self.homes)
        self.say(f"{home.name}: power cut")
        if home.name in self.machines:
            self.machines[home.name].processes.clear()
        home.alive = None
        if self.random.random() < 0.5:
            self.at(self.now + self.random.expovariate(1 / 100), lambda: self._start(home))

    def _wipe(self) -> None:
        """A machine is set up anew under its old name."""
        machine = self.random.choice(list(self.machines.values()))
        home = next(home for home in self.homes if home.name == machine.name)
        self.say(f"{home.name}: set up anew")
        fresh = f"{machine.instance}x"
        self.machines[home.name] = Machine(name=machine.name, instance=fresh, capacity=machine.capacity)
        home.alive = None
        self.at(self.now + 1.0, lambda: self._start(home))

    def _amnesia(self) -> None:
        """A runner dies and loses its journal, but neither its name nor its processes."""
        machine = self.random.choice(list(self.machines.values()))
        home = next(home for home in self.homes if home.name == machine.name)
        self.say(f"{home.name}: loses its memory")
        machine.journal, machine.forgot = {}, True
        home.alive = None
        self.at(self.now + 1.0, lambda: self._start(home))

    def _pause(self) -> None:
        """A machine begins nothing for a while, as with a full disk."""
        machine = self.random.choice(list(self.machines.values()))
        machine.paused_until = self.now + self.random.expovariate(1 / 60)
        self.say(f"{machine.name}: begins nothing until {machine.paused_until:.0f}")

    def drain(self, tries: int = 200) -> None:
        """A machine on which jobs run and wait is to be emptied; once it is, its runner is started again some day."""
        runners = [(home, home.alive) for home in self.homes if isinstance(home.alive, SimulatedRunner)]
        busy = [(home, one) for home, one in runners if one.has(Phase.RUNNING)]
        full = [(home, one) for home, one in busy if one.has(Phase.WAITING)]
        if full or (not tries and runners):
            home, runner = self.random.choice(full or busy or runners)
            self.say(f"{home.name}: drains")
            self.emptied += bool(full)
            runner.drain(self.moment(home.offset))
            self.at(self.now, lambda: self._step(home))
        elif tries:
            self.at(self.now + 1.0, lambda: self.drain(tries - 1))

    def _lie(self) -> None:
        """Somebody writes into a runner's notes that an attempt has ended, without knowing its nonce."""
        ledger = self._ledger(Home(name="liar", offset=0.0, make=self._controller), Faults())
        ledger.away = lambda: False
        seen = ledger.observe()
        held = [
            (name, attempt, there.jobs[key])
            for name, there in seen.assignments.items()
            for key, attempt in there.attempts.items()
        ]
        if not held:
            return
        runner, attempt, oid = self.random.choice(held)
        key = RunKey.from_text(attempt.run)
        mine = seen.notes_of(key, runner)
        lines = mine.on(oid).lines if mine else 0
        lie = ended(attempt.attempt, seq=lines + 1, runner=runner, nonce="a lie", status=Status.DONE)
        lie = msgspec.structs.replace(lie, instance=self.random.choice([attempt.instance, "another"]))
        self.say(f"a liar says that {attempt.key} has ended")
        ledger.commit([AppendNotes(key=key, writer=runner, events={oid: (lie,)})], seen, atomic=False)

    def _stop_all(self) -> None:
        """What still runs is stopped: some jobs would run for ever."""
        self.stopping = True
        for name in self._unfinished():
            if name not in self.deleted:
                self._stop(name)

    def _calm(self) -> None:
        """From here on nothing goes wrong, and what must be there is there."""
        self.say("calm")
        self.faults.calm()
        self._away.clear()
        for home in self.homes:
            if home.name in ("controller-0", "runner-strong"):
                self._start(home)

    def _is_away(self, who: str) -> bool:
        begin, end = self._away.get(who, (0.0, 0.0))
        return begin <= self.now < end

    def _all_quiet(self) -> bool:
        if any(name not in self.deleted for name in self._unfinished()):
            return False
        return not any(self._lives(machine) for name, machine in self.machines.items() if self._is_on(name))

    def _all_started(self) -> bool:
        """Or never will be, within the deadline."""
        return not any(simulated_code.broken_laws(self.remote, self.code, self.pushed, self.gone))

    def _lives(self, machine: Machine) -> bool:
        return any(process.ends > self.now for process in machine.processes.values())

    def _is_on(self, name: str) -> bool:
        return any(home.alive for home in self.homes if home.name == name)

    def _unfinished(self) -> list[str]:
        """By what the remote says now."""
        if self._judge is None:
            ledger = MemoryLedger(self.remote)
            self._judge = ledger, Viewer(ledger.job)
        ledger, viewer = self._judge
        return [view.key.name for view in viewer.views(ledger.observe()) if not view.state.finished]


def main() -> int:
    """Play many seeds, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    logging.disable(logging.CRITICAL)
    failed = 0
    for seed in seeds:
        simulation = Simulation(seed, verbose=options.verbose)
        problems = simulation.play()
        failed += bool(problems)
        for problem in problems:
            sys.stdout.write(f"seed {seed}: {problem}\n")
    sys.stdout.write(f"{len(seeds) - failed} passed, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
