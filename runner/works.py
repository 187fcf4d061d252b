"""Does what duty asks for, in threads, and brings back what became of it as facts for the attempt."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from dstack.model.errors import DstackError, Invalid
from dstack.model.job import Job, Reason
from dstack.model.placing import executor_of
from dstack.model.pool import Phase
from dstack.model.world import Moment
from dstack.store.artifacts import Tree
from dstack.store.log_writer import LogWriter
from runner import facts
from runner.absolute import Exports, export_all
from runner.along import Along
from runner.audience import Audiences
from runner.caches import Caches
from runner.cancelling import Cancel, Cancelled
from runner.discretion import Discretion
from runner.disk import Space
from runner.duty import Action, Discard, Finish, Prepare, Send
from runner.executor import OUTPUT, Executor, Exit, StartFailed
from runner.finishing import Remains, finish, save_along
from runner.held import Failure, Held, Kept
from runner.lanes import Lane, Lanes
from runner.logship import LogShip
from runner.preparing import HeldUp, OpenStore, Place, Workspaces, launch_of, prepare
from runner.shipment import Shipment, say
from runner.supplied import Supply
from runner.transfers import Transfers

LOG = logging.getLogger(__name__)

Fact = Callable[[Held, Moment], Held]

# In an attempt's folder: what is known of its artifacts' content. What was learned while it ran isn't trusted at its
# end: the times of a file that is mapped don't tell of every change.
DIGESTS, DIGESTS_WHILE_RUNNING = "digests.json", "digests-while-running.json"
LOST = Exit(exit_code=None, reason=Reason.LOST, message="nothing was left of it when its runner was started again")
SEE_LOG = "the log of the runner says more; please report it"


def _unknown() -> Space | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the work is done with. `labels` mark what executors make; `space` looks at the disk.

    `supply`: where secrets come from. `volumes`: folders by the names under which they are offered.
    """

    executors: Mapping[str, Executor]
    workspaces: Workspaces
    open_store: OpenStore
    lanes: Lanes
    clock: Callable[[], Moment]
    labels: Mapping[str, str]
    caches: Caches
    supply: Supply = field(default_factory=Supply)
    volumes: Mapping[str, str] = field(default_factory=dict)
    space: Callable[[], Space | None] = _unknown


class Works:
    """The work under way, by attempt."""

    def __init__(self, tools: Tools, post: Callable[[str, Fact], None]) -> None:
        """`post` takes facts, from any thread."""
        self._tools = tools
        self._post = post
        self._cancels: dict[str, Cancel] = {}
        self._suspects: frozenset[str] = frozenset()
        # GPUs that attempts of an earlier start use, by key, until they are removed.
        self.found: Mapping[str, tuple[int, ...]] = {}
        self.logs = LogShip(lambda: tools.clock().ticks)
        self.along = Along(partial(tools.lanes.run, Lane.ALONG), self._save_along, lambda: tools.clock().ticks)
        self._audiences = Audiences(tools.open_store)
        self._discretion = Discretion(workspaces=tools.workspaces, supply=tools.supply)
        self.transfers = Transfers()

    def do(self, action: Action) -> None:
        """Begin it. A signal that an engine can't take now is lost; a KILL is sent again."""
        try:
            self._do(action)
        except (DstackError, OSError) as error:
            LOG.warning("%s of %s failed: %s", type(action).__name__, action.held.key, error)

    def _do(self, action: Action) -> None:
        held = action.held
        match action:
            case Prepare():
                self._begin(Lane.PREPARE, held, self._prepare, _not_prepared)
            case Finish(artifacts=artifacts):
                self._begin(Lane.FINISH, held, lambda one, cancel: self._finish(one, cancel, artifacts), _not_kept)
            case Discard():
                self._begin(Lane.REMOVE, held, self._discard, _left)
            case Send(signal=signal):
                self._executor(held).signal(held.key, signal)
            case _:
                self._cancels.get(held.key, Cancel()).ask()

    def adopt(self, held: Held, now: Moment) -> Held:
        """What an attempt is after a restart. Only one that was running needs looking at."""
        if held.phase is not Phase.RUNNING:
            return held
        try:
            executor = self._tools.executors.get(executor_of(held.job))
            if executor is None or not executor.adopt(launch_of(held, self._place(held))):
                return facts.exited(held, LOST, now)
            self._shipment(held)
        except (DstackError, OSError) as error:
            LOG.warning("%s can't be taken over yet: %s", held.key, error)
            return replace(held, phase=Phase.PREPARING)
        return held

    @property
    def pauses(self) -> dict[str, str]:
        """Why executors begin nothing now, by their names."""
        return {name: one.pause for name, one in self._tools.executors.items() if one.pause}

    @property
    def idle(self) -> str:
        """Why nothing at all can be begun; empty while some executor begins something."""
        pauses = self.pauses
        return "; ".join(pauses.values()) if len(pauses) == len(self._tools.executors) else ""

    @property
    def unlimited(self) -> tuple[str, ...]:
        """Resources whose limits some executor found without effect."""
        return tuple(dict.fromkeys(name for one in self._tools.executors.values() for name in one.unlimited))

    def find_gpus(self) -> None:
        """Look for attempts of an earlier start that use GPUs: the journal may have been lost."""
        for executor in self._tools.executors.values():
            try:
                self.found = {**executor.gpus(), **self.found}
            except (DstackError, OSError) as error:
                LOG.warning("GPUs that jobs of the executor %s use can't be looked for: %s", executor.name, error)

    def exit_of(self, held: Held) -> Exit | None:
        """How its commands ended; None while they run."""
        exit_ = self._executor(held).exited(held.key)
        return None if exit_ is None else self._discretion.of_exit(held, exit_)

    def remove_leftovers(self, held: Mapping[str, Held]) -> None:
        """Remove what attempts left behind that nobody holds any more, in its own lane."""
        self._tools.lanes.run(Lane.REMOVE, lambda: self._remove_leftovers(frozenset(held)))

    def free_space(self, held: Mapping[str, Held]) -> None:
        """Remove what can be made or fetched again, in its own lane. Nothing is begun meanwhile."""
        used = [one.job for one in held.values() if one.at_work]
        self._tools.lanes.run(Lane.REMOVE, lambda: self._free_space(used))

    def close(self) -> None:
        """Let go of everything; attempts go on."""
        for cancel in tuple(self._cancels.values()):
            cancel.ask()
        self.logs.stop()
        self._tools.lanes.close()
        self._tools.caches.close()
        for executor in self._tools.executors.values():
            executor.close()

    def _begin(
        self, lane: Lane, held: Held, work: Callable[[Held, Cancel], Fact], failed: Callable[[Failure], Fact]
    ) -> None:
        cancel = self._cancels[held.key] = Cancel()

        def run() -> None:
            outcome = self._outcome(held, lambda: work(held, cancel), failed)
            self.transfers.forget(held.key)
            self._post(held.key, outcome)

        self._tools.lanes.run(lane, run)

    def _outcome(self, held: Held, work: Callable[[], Fact], failed: Callable[[Failure], Fact]) -> Fact:
        try:
            return work()
        except Cancelled:
            return facts.gave_up
        except HeldUp as pause:
            LOG.warning("%s waits: %s", held.key, self._discretion.hide(held)(str(pause)))
            failure, error = replace(pause.failure, message=self._discretion.hide(held)(str(pause))), pause.__cause__
            return lambda one, now: facts.held_up(one, failure, now, error)
        except StartFailed as error:
            return failed(Failure(reason=error.reason, message=self._discretion.hide(held)(str(error))))
        except Invalid as error:
            return failed(Failure(reason=Reason.INVALID, message=self._discretion.hide(held)(str(error))))
        except Exception as error:
            LOG.exception("%s failed by an error of dstack's own", held.key)
            text = self._discretion.hide(held)(f"an error of dstack's own: {type(error).__name__}: {error}; {SEE_LOG}")
            return failed(Failure(reason=Reason.INTERNAL, message=text))

    def _prepare(self, held: Held, cancel: Cancel) -> Fact:
        # Before anything of its log is sent.
        words = self._discretion.take(held)
        self._shipment(held)
        for text in words:
            say(self._output(held), text, self._tools.clock().wall.timestamp())
        try:
            prepare(held, self._place(held), cancel)
        except HeldUp as error:
            if held.trouble is None:
                say(self._output(held), f"{error}; trying again", self._tools.clock().wall.timestamp())
            raise
        return facts.prepared

    def _finish(self, held: Held, cancel: Cancel, artifacts: bool) -> Fact:  # noqa: FBT001 (bound in `do`)
        find = (lambda: self._tree(held, held.job.artifacts)) if artifacts else None
        trouble = self.along.end(held.key, cancel)
        shipment, store = self._shipment(held), self._tools.open_store
        try:
            memory = self._tools.workspaces.folder(held.key) / DIGESTS
            remains = Remains(
                held=held,
                shipment=shipment,
                store=store(held.attempt.store),
                find=find,
                memory=memory,
                watch=partial(self.transfers.watch, held.key),
            )
        except DstackError as error:
            message = f"the store {held.attempt.store} can't be used: {error}"
            raise HeldUp(Failure(reason=Reason.UPLOAD_FAILED, message=message)) from error
        what = finish(remains, cancel, self._tools.clock().wall.timestamp())
        what = self._discretion.of_kept(held, what, trouble)
        return lambda one, now: facts.kept(one, what, now)

    def _save_along(self, held: Held, cancel: Cancel) -> None:
        """Raises whatever there is."""
        memory = self._tools.workspaces.folder(held.key) / DIGESTS_WHILE_RUNNING
        tree = self._tree(held, tuple(held.job.saves))
        save_along(held, tree, self._tools.open_store(held.attempt.store), memory, cancel)

    def _discard(self, held: Held, cancel: Cancel) -> Fact:
        self.along.end(held.key, cancel)
        self.along.forget(held.key)
        self.logs.drop(held.key)
        executor = self._tools.executors.get(executor_of(held.job))
        if executor is not None:
            executor.remove(held.key)
        self._forget_gpus(held.key)
        self._tools.workspaces.remove(held.key)
        self._cancels.pop(held.key, None)
        return _discarded

    def remove_orphans(self, held: Mapping[str, Held]) -> None:
        """The same now and then, for what was nobody's the last time either: what has just begun may not be known."""
        self._tools.lanes.run(Lane.REMOVE, lambda: self._remove_leftovers(frozenset(held), self._suspects))

    def _remove_leftovers(self, held: frozenset[str], only: frozenset[str] | None = None) -> None:
        try:
            found = [(executor, set(executor.leftovers()) - held) for executor in self._tools.executors.values()]
            folders = set(self._tools.workspaces.keys()) - held
            self._suspects = frozenset(folders.union(*(keys for _, keys in found)))
            for executor, keys in found:
                for key in keys if only is None else keys & only:
                    LOG.warning("removing what an earlier attempt left behind: %s", key)
                    executor.remove(key)
                    self._forget_gpus(key)
            for key in folders if only is None else folders & only:
                self._tools.workspaces.remove(key)
                self._forget_gpus(key)
        except Exception:
            LOG.exception("leftovers of earlier attempts could not be removed; it is tried again")

    def _forget_gpus(self, key: str) -> None:
        self.found = {one: gpus for one, gpus in self.found.items() if one != key}

    def _free_space(self, used: Sequence[Job]) -> None:
        try:
            self._tools.workspaces.trim()
            self._tools.caches.trim(used)
        except Exception:
            LOG.exception("old work folders and caches could not be removed")

    def _shipment(self, held: Held) -> Shipment:
        def open_writer() -> LogWriter:
            return LogWriter.resume(self._tools.open_store(held.attempt.store), held.attempt.log)

        def make() -> Shipment:
            return Shipment(
                self._output(held), open_writer, began=began, followed=followed, secrets=self._discretion.needles(held)
            )

        began, attempt = self._tools.clock().ticks, held.attempt
        followed = self._audiences.of(attempt.store, attempt.run)
        return self.logs.add(held.key, make)

    def _place(self, held: Held) -> Place:
        tools = self._tools
        return Place(
            executor=self._executor(held),
            workspaces=tools.workspaces,
            open_store=tools.open_store,
            labels=tools.labels,
            watch=partial(self.transfers.watch, held.key),
            caches=tools.caches,
            volumes=tools.volumes,
        )

    def _tree(self, held: Held, declared: tuple[str, ...]) -> Tree:
        root, executor = self._tools.workspaces.tree(held.key), self._executor(held)
        if not isinstance(executor, Exports) or not any(path.startswith("/") for path in declared):
            return Tree(root=root, working_dir=held.job.working_dir)
        exported = export_all(executor, held.key, self._tools.workspaces.folder(held.key), declared)
        return Tree(root=root, working_dir=held.job.working_dir, absolute=exported)

    def _output(self, held: Held) -> Path:
        return self._tools.workspaces.folder(held.key) / OUTPUT

    def _executor(self, held: Held) -> Executor:
        return self._tools.executors[executor_of(held.job)]


def _not_prepared(failure: Failure) -> Fact:
    return lambda held, now: facts.not_prepared(held, failure, now)


def _not_kept(failure: Failure) -> Fact:
    return lambda held, now: facts.kept(held, Kept(failure=failure), now)


def _left(failure: Failure) -> Fact:
    """It is tried again, and at the latest by the next start."""
    LOG.warning("something of an attempt could not be removed yet: %s", failure.message)
    return lambda held, now: facts.held_up(held, failure, now)


def _discarded(held: Held, _now: Moment) -> Held:
    return facts.discarded(held)
