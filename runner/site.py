"""Where the work on an attempt is done: its log, its folders, its executor."""

from functools import partial
from pathlib import Path

from dstack.model.placing import executor_of
from dstack.store.artifacts import Tree
from dstack.store.log_writer import LogWriter
from runner.absolute import Exports, export_all
from runner.audience import Audiences
from runner.discretion import Discretion
from runner.executor import OUTPUT, Executor
from runner.held import Held
from runner.logship import LogShip
from runner.preparing import Place
from runner.shipment import Shipment
from runner.tools import Tools
from runner.transfers import Transfers


class Site:
    """Puts together, from the tools, what is one attempt's own."""

    def __init__(self, tools: Tools, logs: LogShip, transfers: Transfers, discretion: Discretion) -> None:
        """`logs` sends them; `transfers` shows how far what takes long is."""
        self._tools, self._logs, self._transfers, self._discretion = tools, logs, transfers, discretion
        self._audiences = Audiences(tools.open_store)

    def shipment(self, held: Held) -> Shipment:
        """Its log on the way to the store."""

        def open_writer() -> LogWriter:
            return LogWriter.resume(self._tools.open_store(held.attempt.store), held.attempt.log)

        def make() -> Shipment:
            return Shipment(
                self.output(held), open_writer, began=began, followed=followed, secrets=self._discretion.needles(held)
            )

        began, attempt = self._tools.clock().ticks, held.attempt
        followed = self._audiences.of(attempt.store, attempt.run)
        return self._logs.add(held.key, make)

    def place(self, held: Held) -> Place:
        """Where and with what it is executed."""
        tools = self._tools
        return Place(
            executor=self.executor(held),
            workspaces=tools.workspaces,
            open_store=tools.open_store,
            labels=tools.labels,
            watch=partial(self._transfers.watch, held.key),
            caches=tools.caches,
            volumes=tools.volumes,
        )

    def tree(self, held: Held, declared: tuple[str, ...]) -> Tree:
        """Its artifacts, those at absolute paths brought out of its container. Raises what an export raises."""
        root, executor = self._tools.workspaces.tree(held.key), self.executor(held)
        if not isinstance(executor, Exports) or not any(path.startswith("/") for path in declared):
            return Tree(root=root, working_dir=held.job.working_dir)
        exported = export_all(executor, held.key, self._tools.workspaces.folder(held.key), declared)
        return Tree(root=root, working_dir=held.job.working_dir, absolute=exported)

    def output(self, held: Held) -> Path:
        """The file with its output."""
        return self._tools.workspaces.folder(held.key) / OUTPUT

    def executor(self, held: Held) -> Executor:
        """The one that its job asks for."""
        return self._tools.executors[executor_of(held.job)]
