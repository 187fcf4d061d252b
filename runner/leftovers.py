"""What attempts left on the machine that nobody holds any more: containers, folders, the GPUs they use."""

import logging
from collections.abc import Mapping, Sequence

from dstack.model.errors import DstackError
from dstack.model.job import Job
from runner.held import Held
from runner.lanes import Lane
from runner.tools import Tools

LOG = logging.getLogger(__name__)


class Leftovers:
    """`found`: GPUs that attempts of an earlier start use, by key, until they are removed."""

    def __init__(self, tools: Tools) -> None:
        """Nothing is looked at yet."""
        self._tools = tools
        self._suspects: frozenset[str] = frozenset()
        self.found: Mapping[str, tuple[int, ...]] = {}

    def find_gpus(self) -> None:
        """Look for attempts of an earlier start that use GPUs: the journal may have been lost."""
        for executor in self._tools.executors.values():
            try:
                self.found = {**executor.gpus(), **self.found}
            except (DstackError, OSError) as error:
                LOG.warning("GPUs that jobs of the executor %s use can't be looked for: %s", executor.name, error)

    def forget_gpus(self, key: str) -> None:
        """Of an attempt that is removed."""
        self.found = {one: gpus for one, gpus in self.found.items() if one != key}

    def remove_all(self, held: Mapping[str, Held]) -> None:
        """Remove what attempts left behind that nobody holds any more, in its own lane."""
        self._tools.lanes.run(Lane.REMOVE, lambda: self._remove(frozenset(held)))

    def remove_orphans(self, held: Mapping[str, Held]) -> None:
        """The same now and then, for what was nobody's the last time either: what has just begun may not be known."""
        self._tools.lanes.run(Lane.REMOVE, lambda: self._remove(frozenset(held), self._suspects))

    def free_space(self, held: Mapping[str, Held]) -> None:
        """Remove what can be made or fetched again, in its own lane. Nothing is begun meanwhile."""
        used = [one.job for one in held.values() if one.at_work]
        self._tools.lanes.run(Lane.REMOVE, lambda: self._free_space(used))

    def _remove(self, held: frozenset[str], only: frozenset[str] | None = None) -> None:
        try:
            found = [(executor, set(executor.leftovers()) - held) for executor in self._tools.executors.values()]
            folders = set(self._tools.workspaces.keys()) - held
            self._suspects = frozenset(folders.union(*(keys for _, keys in found)))
            for executor, keys in found:
                for key in keys if only is None else keys & only:
                    LOG.warning("removing what an earlier attempt left behind: %s", key)
                    executor.remove(key)
                    self.forget_gpus(key)
            for key in folders if only is None else folders & only:
                self._tools.workspaces.remove(key)
                self.forget_gpus(key)
        except Exception:
            LOG.exception("leftovers of earlier attempts could not be removed; it is tried again")

    def _free_space(self, used: Sequence[Job]) -> None:
        try:
            self._tools.workspaces.trim()
            self._tools.caches.trim(used)
        except Exception:
            LOG.exception("old work folders and caches could not be removed")
