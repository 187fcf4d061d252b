"""One look of the reporter: from what a turn saw of runs to what a forge should show, and one step towards that."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.trouble import Trouble
from dstack.forge.comment import Values, marker, render, shown_jobs
from dstack.forge.forge import Forge
from dstack.forge.reconciling import Reconciler
from dstack.model.errors import DstackError
from dstack.model.forge import ForgeSettings
from dstack.model.lines import JobLine
from dstack.model.pool import Phase
from dstack.model.reports import Lines, PullReport, reported, reports
from dstack.model.settings import Settings
from dstack.model.verdicts import Told
from dstack.model.world import Moment, World
from dstack.store.measuring import measured
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

# A token that was refused is looked for anew: git's helpers give out ones that expire.
REOPEN_SECONDS = 600.0
FIRST_WAIT, LAST_WAIT = 60.0, 900.0
REMEMBERED = 2_000


@dataclass(slots=True, kw_only=True)
class ReportTurn:
    """`open_forge` finds the forge and a token for it, and may raise DstackError; `open_store` opens a store by URL.

    `jitter` gives a fresh number from 0 to 1. Nothing of it is for more than one thread.
    """

    open_forge: Callable[[ForgeSettings], Forge]
    open_store: Callable[[str], Store]
    jitter: Callable[[], float]
    _settings: ForgeSettings | None = None
    _reconciler: Reconciler | None = None
    _opened: float = 0.0
    _failures: int = 0
    _until: float = 0.0
    _lines: Lines = field(default_factory=Lines)
    _stores: dict[str, Store] = field(default_factory=dict)
    _measured: OrderedDict[tuple[str, str], Values] = field(default_factory=OrderedDict)
    _trouble: Trouble = field(default_factory=Trouble)

    def step(self, world: World, settings: Settings, now: Moment) -> float | None:
        """Answers in how many seconds to come again; None: when there is news."""
        if settings.forge is None:
            self.close()
            self._settings = None
            return None
        if settings.forge != self._settings:
            self.close()
            self._settings, self._failures, self._until = settings.forge, 0, 0.0
        if now.ticks < self._until:
            return self._until - now.ticks
        reconciler = self._reconciler
        if reconciler is None or (reconciler.denied and now.ticks - self._opened > REOPEN_SECONDS):
            reconciler = self._open(world.repository, settings.forge, now)
        if reconciler is None:
            return self._until - now.ticks
        runs = reported(world.runs, settings.forge, now.wall)
        wanted = reports(runs, self._lines.of(runs), _phases(world), settings.forge)
        return reconciler.step(wanted, now.ticks)

    def close(self) -> None:
        """Let go of the forge."""
        if self._reconciler:
            self._reconciler.forge.close()
            self._reconciler = None

    def _open(self, repository: str, settings: ForgeSettings, now: Moment) -> Reconciler | None:
        mark = marker(repository)
        self.close()
        self._opened = now.ticks
        try:
            forge = self.open_forge(settings)
        except DstackError as error:
            wait = min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures, 10)) * (0.75 + self.jitter() / 2)
            self._failures += 1
            self._until = now.ticks + wait
            self._trouble.tell("forge", f"runs go on, but can't be reported: {error}")
            return None
        self._failures = 0

        def rendered(report: PullReport) -> tuple[str, bool]:
            values, whole = self._values(report)
            return render(report, values, mark), whole

        self._reconciler = Reconciler(
            forge=forge,
            marker=mark,
            render=rendered,
            jitter=self.jitter,
            tell=self._trouble.tell,
            over=self._trouble.over,
        )
        return self._reconciler

    def _values(self, report: PullReport) -> tuple[dict[str, Values], bool]:
        """What jobs have measured, and whether all of it could be read that ever will be."""
        found: dict[str, Values] = {}
        whole = True
        for told in report.runs:
            for job in shown_jobs(told.line):
                if job.job in told.metrics and job.status.finished and job.artifacts:
                    values = self._read(told, job)
                    whole = whole and values is not None
                    if values is not None:
                        found[job.job] = values
        return found, whole

    def _read(self, told: Told, job: JobLine) -> Values | None:
        """None where the store can't be read now."""
        store, artifacts = told.line.store, job.artifacts
        if store is None or artifacts is None:
            return None
        # The artifacts alone don't say which of them are metrics: the job does.
        key = (job.job, artifacts)
        if key not in self._measured:
            try:
                if store not in self._stores:
                    self._stores[store] = self.open_store(store)
                digest = artifacts.rpartition("/")[2]
                values, problems = measured(self._stores[store], digest, told.folders[job.job], told.metrics[job.job])
            except DstackError as error:
                LOG.debug("metrics of %s can't be read: %s", job.job, error)
                return None
            self._measured[key] = Values(values=values, broken=bool(problems))
            while len(self._measured) > REMEMBERED:
                self._measured.popitem(last=False)
        return self._measured[key]


def _phases(world: World) -> dict[str, Phase]:
    """What heartbeats say of attempts: on a forge `started` comes late."""
    beats = (runner.watched.heartbeat for runner in world.runners.values())
    return {key: phase for beat in beats if beat for key, phase in beat.attempts.items()}
