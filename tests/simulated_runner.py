"""A simulated machine of the pool: the real duty and fold around processes, a disk and a network that are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from dstack.model import events, job, keys
from dstack.model import manifest as manifests
from dstack.model.errors import DstackError, Unavailable
from dstack.model.manifest import Entry, Manifest
from dstack.model.observation import AppendNotes, Observation, SetRegistration
from dstack.model.pool import Attempt, Capacity, Heartbeat, Phase, Registration
from dstack.model.refs import RunKey
from dstack.model.world import Moment
from dstack.store.heartbeats import write_runner
from dstack.store.store import Store
from runner import facts
from runner.duty import Cancel, Discard, Duty, Finish, Prepare, Send, assigned, next_at, react
from runner.executor import Exit, Signal
from runner.facts import Given, Rules
from runner.held import Failure, Held, Kept
from runner.leaving import Leaving, Way, announced, asked, is_over
from runner.outcome import beginning
from runner.registering import Standing, Step
from tests.simulated_remote import SimulatedLedger

LEASE = 60.0
ENDLESS = 0.1


@dataclass(slots=True)
class Process:
    """Runs until `ends` (ticks), then exits with `code`; `stubborn` ones ignore TERM."""

    ends: float
    code: int
    stubborn: bool
    signal: int | None = None
    gpus: tuple[int, ...] = ()

    def kill(self, now: float, signal: int) -> None:
        """End it now."""
        if now < self.ends:
            self.ends, self.signal, self.code = now, signal, 128 + signal


@dataclass(slots=True, kw_only=True)
class Machine:
    """What survives a crash of the runner: identity, journal, processes.

    `forgot`: its journal was lost once. `clashes`: jobs that were given what another had, begun in a drain, or left
    running by one.
    """

    name: str
    instance: str
    capacity: Capacity
    journal: dict[str, Held] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    started: list[tuple[str, float]] = field(default_factory=list)
    paused_until: float = 0.0
    forgot: bool = False
    clashes: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SimulatedRunner:
    """One start of the daemon on a machine. `step` answers when it wants to be called again, in ticks."""

    machine: Machine
    ledger: SimulatedLedger
    store: Store
    random: Random
    start: str
    on_start: Callable[[Held], None]
    is_paused: Callable[[], bool]
    leaving: Leaving | None = None
    begun: frozenset[str] = frozenset()
    done: bool = False
    duty: Duty = field(init=False)
    inherited: frozenset[str] = field(init=False)
    registered: bool = False
    stopped: bool = False
    tidied: bool = False
    beats: int = 0
    polls: int = 0
    next_beat: float = 0.0
    assignment: str | None = None
    tasks: dict[str, tuple[float, str]] = field(default_factory=dict)
    seen: Observation | None = None

    def __post_init__(self) -> None:
        """Find what an earlier start left: its journal, and the processes that went on."""
        held = {key: replace(one, task=None, cancelled=False) for key, one in self.machine.journal.items()}
        self.duty = Duty(capacity=self.machine.capacity, held=held)
        self.inherited = frozenset(self.machine.processes)

    def drain(self, now: Moment) -> None:
        """As by SIGTERM: finish what has begun, give back what has not, then end."""
        self.leaving = asked(self.leaving, Way.DRAIN, now.ticks)
        self.begun = frozenset(key for key, held in self.duty.held.items() if held.phase is not Phase.WAITING)

    def has(self, phase: Phase) -> bool:
        """Whether an attempt in hand is in it."""
        return any(held.phase is phase for held in self.duty.held.values())

    def step(self, now: Moment) -> float:
        """One pass over everything."""
        old = {key: one.gpus for key, one in self.machine.processes.items() if key in self.inherited}
        self.duty = replace(self.duty, taking=not self._pause(), found={key: own for key, own in old.items() if own})
        self._beat(now)
        try:
            self._poll(now)
        except Unavailable:
            pass_until = now.ticks + self.random.uniform(1, 10)
        else:
            pass_until = now.ticks + 15
        if self.stopped:
            return now.ticks + 3600
        self._work(now)
        self._report(now)
        self._end(now)
        self.machine.journal = dict(self.duty.held)
        return min([pass_until, *self._wakes(now)])

    def _beat(self, now: Moment) -> None:
        if now.ticks < self.next_beat or not self.registered:
            return
        self.beats += 1
        beat = Heartbeat(
            runner=self.machine.name,
            instance=self.machine.instance,
            start=self.start,
            beats=self.beats,
            polls=self.polls,
            assignment=self.assignment,
            attempts={key: held.phase for key, held in self.duty.held.items()},
            free=self.duty.free,
            pause=self._pause(),
            at=now.wall,
        )
        self.next_beat = now.ticks + min(LEASE / 4, 0.25 * 2.0 ** min(self.beats, 10))
        try:
            write_runner(self.store, beat)
        except DstackError:
            self.next_beat = now.ticks + 2.0

    def _poll(self, now: Moment) -> None:
        seen = self.ledger.observe()
        mine = seen.runners.get(self.machine.name)
        if not self.registered:
            self._register(seen, now)
            return
        if mine is not None and (mine.instance, mine.start) != (self.machine.instance, self.start):
            self.stopped = True
            return
        if self.leaving and mine is not None and mine.state is not announced(self.leaving, self.duty):
            self._register(seen, now)
        self.polls += 1
        self.seen = seen
        there = seen.assignments.get(self.machine.name)
        self.assignment = there.oid if there else None
        given = {key: self._given(seen, key) for key in there.attempts} if there else {}
        rules = Rules(
            repository=seen.repository or "",
            instance=self.machine.instance,
            executors=frozenset({"process"}),
            capacity=self.machine.capacity,
        )
        self.duty = assigned(self.duty, given, rules, whole=True)
        if not self.tidied:
            self.tidied = True
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What an earlier start began and nobody holds any more is removed at the first poll."""
        for key in set(self.machine.processes) - set(self.duty.held):
            del self.machine.processes[key]

    def _register(self, seen: Observation, now: Moment) -> None:
        registration = Registration(
            repository=seen.repository or "",
            runner=self.machine.name,
            instance=self.machine.instance,
            start=self.start,
            host=self.machine.name,
            capacity=self.machine.capacity,
            executors=("process",),
            store=self.store.url,
            at=now.wall,
            state=announced(self.leaving, self.duty),
        )
        pushed = self.ledger.commit([SetRegistration(registration=registration)], seen, atomic=False)
        self.registered = self.registered or pushed.won

    def _given(self, seen: Observation, key: str) -> Given:
        there = seen.assignments[self.machine.name]
        attempt, oid = there.attempts[key], there.jobs[key]
        data = self.ledger.job(oid)
        spec = job.from_bytes(data) if data else Failure(reason=job.Reason.INVALID, message="no job object")
        claims = [event for event in self._note(seen, attempt.run, oid).events if _is_of(event, attempt)]
        ended = next((event for event in claims if isinstance(event, events.Ended)), None)
        return Given(attempt=attempt, oid=oid, job=spec, started=bool(claims), ended=ended)

    def _note(self, seen: Observation, run: str, oid: str) -> events.Parsed:
        notes = seen.notes_of(RunKey.from_text(run), self.machine.name)
        return notes.on(oid) if notes else events.Parsed()

    def _work(self, now: Moment) -> None:
        for key, held in self.duty.held.items():
            process = self.machine.processes.get(key)
            if held.phase is Phase.RUNNING:
                self.duty = self.duty.put(self._watched(held, process, now))
        for key in [key for key, (at, _) in self.tasks.items() if at <= now.ticks]:
            self._done(key, self.tasks.pop(key)[1], now)
        self.duty, actions = react(self.duty, now)
        for action in actions:
            self._act(action, now)

    def _watched(self, held: Held, process: Process | None, now: Moment) -> Held:
        if process is None:
            return facts.exited(held, Exit(exit_code=None, reason=job.Reason.LOST, message="nothing is left"), now)
        if process.ends <= now.ticks:
            return facts.exited(held, Exit(exit_code=process.code, signal=process.signal), now)
        return held

    def _act(self, action: Prepare | Send | Cancel | Finish | Discard, now: Moment) -> None:
        key = action.held.key
        if isinstance(action, Prepare):
            if self.leaving and key not in self.begun:
                self.machine.clashes.append(f"{key} is begun by {self.machine.name}, which is draining")
            self.tasks[key] = (now.ticks + self.random.expovariate(1.0), "prepare")
        elif isinstance(action, Finish):
            self.tasks[key] = (now.ticks + self.random.expovariate(1.0), "finish")
        elif isinstance(action, Discard):
            self.machine.processes.pop(key, None)
            self.tasks[key] = (now.ticks, "discard")
        elif isinstance(action, Cancel):
            self.tasks[key] = (now.ticks, "cancelled")
        else:
            self._send(self.machine.processes.get(key), action.signal, now)

    def _send(self, process: Process | None, signal: Signal, now: Moment) -> None:
        if process and (signal is Signal.KILL or not process.stubborn):
            process.kill(now.ticks, 9 if signal is Signal.KILL else 15)

    def _done(self, key: str, task: str, now: Moment) -> None:
        held = self.duty.held.get(key)
        if held is None:
            return
        if task == "prepare":
            after = self._started(held, now)
        elif task == "finish":
            after = self._finished(held, now)
        elif task == "cancelled":
            after = facts.gave_up(held, now)
        else:
            after = facts.discarded(held)
        self.duty = self.duty.put(after)

    def _started(self, held: Held, now: Moment) -> Held:
        if self.random.random() < 0.05:
            return facts.held_up(held, Failure(reason=job.Reason.CHECKOUT, message="no code"), now)
        if held.key not in self.machine.processes:
            self.on_start(held)
            self._check_gpus(held, now)
            code = self.random.choice([0, 0, 0, 0, 1])
            endless = self.random.random() < ENDLESS
            ends = float("inf") if endless else now.ticks + self.random.expovariate(1 / 20.0)
            self.machine.processes[held.key] = Process(ends, code, stubborn=self.random.random() < 0.2)
            self.machine.processes[held.key].gpus = held.gpus
        return facts.prepared(held, now)

    def _check_gpus(self, held: Held, now: Moment) -> None:
        others = {index for one in self.machine.processes.values() if one.ends > now.ticks for index in one.gpus}
        if others & set(held.gpus):
            self.machine.clashes.append(f"{held.key} gets GPUs of {self.machine.name} that another has")

    def _finished(self, held: Held, now: Moment) -> Held:
        if self.random.random() < 0.05:
            return facts.held_up(held, Failure(reason=job.Reason.UPLOAD_FAILED, message="no store"), now)
        try:
            return facts.kept(held, Kept(log_size=1, manifest=self._save(held)), now)
        except Unavailable:
            return facts.held_up(held, Failure(reason=job.Reason.UPLOAD_FAILED, message="no store"), now)

    def _save(self, held: Held) -> str:
        """No two attempts make the same."""
        data = f"{held.key} {held.attempt.nonce}".encode()
        entry = Entry(path="out", size=len(data), sha256=manifests.digest(data))
        self.store.put(keys.content(entry.sha256), data)
        text = manifests.to_bytes(Manifest(artifacts=("out",), entries=(entry,)))
        self.store.put(keys.manifest(manifests.digest(text)), text)
        return manifests.digest(text)

    def _report(self, now: Moment) -> None:
        """One push with all lines that are not in our notes yet."""
        if self.seen is None:
            return
        changes: dict[RunKey, dict[str, tuple[events.Event, ...]]] = {}
        for held in self.duty.held.values():
            lines = self._lines(held)
            if lines:
                changes.setdefault(RunKey.from_text(held.attempt.run), {})[held.oid] = lines
        if not changes:
            return
        name = self.machine.name
        pushes = [AppendNotes(key=key, writer=name, events=lines) for key, lines in changes.items()]
        try:
            self.ledger.commit(pushes, self.seen, atomic=False)
        except Unavailable:
            self.next_beat = min(self.next_beat, now.ticks + 5.0)

    def _lines(self, held: Held) -> tuple[events.Event, ...]:
        if held.gone or self.seen is None:
            return ()
        lines: list[events.Event] = []
        if held.times.running and not held.started_known:
            lines.append(beginning(held))
        if held.ended and not held.ended_known:
            lines.append(held.ended)
        if not lines:
            return ()
        count = self._note(self.seen, held.attempt.run, held.oid).lines
        return tuple(
            type(line)(**{**{name: getattr(line, name) for name in line.__struct_fields__}, "seq": count + number})
            for number, line in enumerate(lines, 1)
        )

    def _pause(self) -> str:
        if self.leaving:
            return "it is draining"
        return "its disk is nearly full" if self.is_paused() else ""

    def _end(self, now: Moment) -> None:
        """Of a drain, as the agent comes to it."""
        if self.leaving is None or self.seen is None:
            return
        if self.leaving.goodbye is None:
            goodbye = now.ticks if self.leaving.is_ready(self.duty, now.ticks) else None
            self.leaving = replace(self.leaving, goodbye=goodbye)
            return
        mine = self.seen.runners.get(self.machine.name)
        if mine is None:
            return
        step = Step.STAND if mine.state is announced(self.leaving, self.duty) else Step.WRITE
        standing = Standing(wanted=mine, ours=True, step=step)
        self.done = is_over(self.leaving, self.duty, standing, now.ticks, registered=self.registered)
        if self.done and self.tidied:
            left = [key for key, one in self.machine.processes.items() if one.ends > now.ticks]
            self.machine.clashes.extend(f"{self.machine.name} has drained, and {key} still runs" for key in left)

    def _wakes(self, now: Moment) -> list[float]:
        running = [key for key, held in self.duty.held.items() if held.phase is Phase.RUNNING]
        processes = [self.machine.processes[key].ends for key in running if key in self.machine.processes]
        processes = [ends for ends in processes if ends < float("inf")]
        leaves = now.ticks + 1.0 if self.leaving else None
        later = [next_at(self.duty), self.next_beat, leaves, *processes, *(at for at, _ in self.tasks.values())]
        unsent = any(self._lines(held) for held in self.duty.held.values())
        return [max(now.ticks + 0.01, at) for at in (*later, now.ticks + 1.0 if unsent else None) if at is not None]


def _is_of(event: events.Event, attempt: Attempt) -> bool:
    fields = ("attempt", "instance", "nonce")
    return all(getattr(event, name, None) == getattr(attempt, name) for name in fields)
