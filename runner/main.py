"""The runner as a daemon: its agent, what wakes it, and what another process asked of it."""

import logging
import os
import threading
from collections.abc import Callable

from dstack.ledger.telling import nobody
from dstack.ledger.waking import Loop
from dstack.model.bucket import POLL_SECONDS
from dstack.model.errors import Failed
from dstack.wakeups import Wakeups, token_of
from runner.agent import Agent
from runner.composing import agent_of
from runner.parts import RunnerParts
from runner.statefolder import forget_drain, is_asked_to_drain, locked, remember

LOG = logging.getLogger(__name__)


class RunnerDaemon:
    """A runner and what wakes it. `run` blocks until it has ended; the rest may be called from anywhere."""

    def __init__(self, parts: RunnerParts) -> None:
        """Nothing is read or written yet."""
        self._parts = parts
        self._agent: Agent | None = None
        self._wish: bool | None = None
        self._wishes_drain = False
        self._asked = False
        self._told: Callable[[], None] = nobody
        self._wakeups: Wakeups | None = None
        # Set when it is registered, has read what is assigned to it, and is about to end all else it finds.
        self.tidied = threading.Event()

    def run(self) -> None:
        """Until shut down. Raises Failed where it can't be a runner, or is one no more; Unavailable, Invalid."""
        with locked(self._parts.folder):
            token = token_of(os.environ)
            agent = self._agent = agent_of(self._parts, self._poke, self._pushed)
            agent.lookout.tidied = self.tidied
            _keep_name(self._parts, agent)
            if self._wishes_drain:
                agent.drain()
            if self._wish is not None:
                agent.shutdown(stop_attempts=self._wish)
            remote = self._parts.remote
            poll = self._parts.poll or POLL_SECONDS[remote.reach]
            waker = Loop(self._wake, name="runner", poll=poll, watched=remote.path)
            thread = threading.Thread(target=waker.run, name="runner-waker", daemon=True)
            thread.start()
            wakeups = Wakeups(
                repository=agent.repository, token=token, url=lambda: agent.controller_url, woke=self.wake
            )
            if remote.path is None:  # else its files tell of every change
                self._wakeups = wakeups
                wakeups.start()
            try:
                agent.run()
            finally:
                wakeups.stop()
                waker.stop()
                thread.join()
            if agent.drained:
                forget_drain(self._parts.folder)
            if agent.failure:
                raise Failed(agent.failure)

    @property
    def held(self) -> tuple[str, ...]:
        """The attempts in hand, by `<job>.<attempt>`."""
        return tuple(self._agent.held) if self._agent else ()

    def shutdown(self, *, stop_attempts: bool) -> None:
        """Have `run` end soon: with the attempts in hand, or leaving them to the next start."""
        self._wish = stop_attempts
        if self._agent is not None:
            self._agent.shutdown(stop_attempts=stop_attempts)

    def drain(self) -> None:
        """Have `run` end when what has begun is finished; nothing more is begun."""
        self._wishes_drain = True
        if self._agent is not None:
            self._agent.drain()

    def wake(self) -> None:
        """Something may have changed on the remote."""
        if self._agent is not None:
            self._agent.wake()

    def tell(self, told: Callable[[], None]) -> None:
        """Before `run`: have this called whenever something was pushed, by a controller of this process."""
        self._told = told

    def _pushed(self) -> None:
        self._told()
        if self._wakeups:
            self._wakeups.poke()

    def _wake(self) -> None:
        self.wake()
        if self._agent is not None:
            self._obey(self._agent)

    def _obey(self, agent: Agent) -> None:
        """What stands in the state folder: asked by another process, and still wanted after a restart in the middle."""
        before, self._asked = self._asked, is_asked_to_drain(self._parts.folder)
        if self._asked and not before:
            LOG.info("draining, as asked: no more jobs are taken (`dstack-runner drain --cancel` takes it back)")
            agent.drain()
        elif before and not self._asked:
            agent.undrain()

    def _poke(self) -> None:
        if self._agent is not None:
            self._agent.poke()


def _keep_name(parts: RunnerParts, agent: Agent) -> None:
    """Remember the name. Raises Failed where it is another and attempts are in hand: nobody would find them then."""
    memory = parts.folder / "name"
    before = memory.read_text() if memory.exists() else parts.name
    if before != parts.name and agent.held:
        agent.close()
        msg = (
            f"this runner has {len(agent.held)} attempt(s) in hand as {before}: start it once more under that name "
            f"(dstack-runner config --name {before}) until they have ended, then rename it"
        )
        raise Failed(msg)
    remember(memory, parts.name)
