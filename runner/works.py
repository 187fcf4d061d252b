"""Does what duty asks for, in threads, and brings back what became of it as facts for the attempt."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dstack.model.errors import DstackError
from dstack.model.job import Reason
from dstack.model.placing import executor_of
from dstack.model.pool import Phase
from dstack.model.world import Moment
from runner import facts, mishaps
from runner.along import Along
from runner.cancelling import Cancel
from runner.discretion import Discretion
from runner.duty import Action, Discard, Finish, Prepare, Send
from runner.executor import Exit
from runner.finishing import Remains, finish, save_along
from runner.held import Failure, Held
from runner.lanes import Lane
from runner.leftovers import Leftovers
from runner.logship import LogShip
from runner.mishaps import Fact, outcome
from runner.preparing import HeldUp, launch_of, prepare
from runner.shipment import say
from runner.site import Site
from runner.tools import Tools
from runner.transfers import Transfers

LOG = logging.getLogger(__name__)

# In an attempt's folder: what is known of its artifacts' content. What was learned while it ran isn't trusted at its
# end: the times of a file that is mapped don't tell of every change.
DIGESTS, DIGESTS_WHILE_RUNNING = "digests.json", "digests-while-running.json"
LOST = Exit(exit_code=None, reason=Reason.LOST, message="nothing was left of it when its runner was started again")


class Works:
    """The work under way, by attempt."""

    def __init__(self, tools: Tools, post: Callable[[str, Fact], None]) -> None:
        """`post` takes facts, from any thread."""
        self._tools = tools
        self._post = post
        self._cancels: dict[str, Cancel] = {}
        self.leftovers = Leftovers(tools)
        self.logs = LogShip(lambda: tools.clock().ticks)
        self.along = Along(partial(tools.lanes.run, Lane.ALONG), self._save_along, lambda: tools.clock().ticks)
        self._discretion = Discretion(workspaces=tools.workspaces, supply=tools.supply)
        self.transfers = Transfers()
        self._site = Site(tools, self.logs, self.transfers, self._discretion)

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
                self._begin(Lane.PREPARE, held, self._prepare, mishaps.not_prepared)
            case Finish(artifacts=artifacts):
                self._begin(
                    Lane.FINISH, held, lambda one, cancel: self._finish(one, cancel, artifacts), mishaps.not_kept
                )
            case Discard():
                self._begin(Lane.REMOVE, held, self._discard, mishaps.left)
            case Send(signal=signal):
                self._site.executor(held).signal(held.key, signal)
            case _:
                self._cancels.get(held.key, Cancel()).ask()

    def adopt(self, held: Held, now: Moment) -> Held:
        """What an attempt is after a restart. Only one that was running needs looking at."""
        if held.phase is not Phase.RUNNING:
            return held
        try:
            executor = self._tools.executors.get(executor_of(held.job))
            if executor is None or not executor.adopt(launch_of(held, self._site.place(held))):
                return facts.exited(held, LOST, now)
            self._site.shipment(held)
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

    def exit_of(self, held: Held) -> Exit | None:
        """How its commands ended; None while they run."""
        exit_ = self._site.executor(held).exited(held.key)
        return None if exit_ is None else self._discretion.of_exit(held, exit_)

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
            fact = outcome(held, lambda: work(held, cancel), failed, self._discretion)
            self.transfers.forget(held.key)
            self._post(held.key, fact)

        self._tools.lanes.run(lane, run)

    def _prepare(self, held: Held, cancel: Cancel) -> Fact:
        # Before anything of its log is sent.
        words = self._discretion.take(held)
        self._site.shipment(held)
        for text in words:
            say(self._site.output(held), text, self._tools.clock().wall.timestamp())
        try:
            prepare(held, self._site.place(held), cancel)
        except HeldUp as error:
            if held.trouble is None:
                say(self._site.output(held), f"{error}; trying again", self._tools.clock().wall.timestamp())
            raise
        return facts.prepared

    def _finish(self, held: Held, cancel: Cancel, artifacts: bool) -> Fact:  # noqa: FBT001 (bound in `do`)
        find = (lambda: self._site.tree(held, held.job.artifacts)) if artifacts else None
        trouble = self.along.end(held.key, cancel)
        shipment, store = self._site.shipment(held), self._tools.open_store
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
        tree = self._site.tree(held, tuple(held.job.saves))
        save_along(held, tree, self._tools.open_store(held.attempt.store), memory, cancel)

    def _discard(self, held: Held, cancel: Cancel) -> Fact:
        self.along.end(held.key, cancel)
        self.along.forget(held.key)
        self.logs.drop(held.key)
        executor = self._tools.executors.get(executor_of(held.job))
        if executor is not None:
            executor.remove(held.key)
        self.leftovers.forget_gpus(held.key)
        self._tools.workspaces.remove(held.key)
        self._cancels.pop(held.key, None)
        return mishaps.discarded
