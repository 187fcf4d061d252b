"""What a forge is to be told of runs: a status for each commit and workflow, and one report for each pull request."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dstack.model.forge import ForgeSettings, Reported
from dstack.model.lines import RunLine, run_line
from dstack.model.pool import Phase, attempt_key
from dstack.model.refs import RunKey
from dstack.model.runspec import Via
from dstack.model.status import Status
from dstack.model.verdicts import State, Told, verdict
from dstack.model.world import RunView

# What ended longer ago is history: a controller that starts doesn't tell it again.
RECENT = timedelta(days=1)
# Of pull requests with more runs on one commit, so many are told of.
MOST_RUNS = 20
# GitHub takes no longer description.
DESCRIPTION = 140
CONTEXT = 200

_COMMIT = re.compile(r"[0-9a-f]{40}")
_AT_WORK = frozenset({Phase.RUNNING, Phase.UPLOADING})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitStatus:
    """`context` tells statuses of a commit apart. `ref`: the branch or tag, where it is known; `link` may be empty."""

    commit: str
    context: str
    state: State
    description: str
    link: str = ""
    ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReport:
    """All that is told about a pull request: the runs of its newest commit, by workflow."""

    pull: int
    commit: str
    runs: tuple[Told, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """`statuses` by commit and context, `pulls` by number."""

    statuses: Mapping[tuple[str, str], CommitStatus] = field(default_factory=dict)
    pulls: Mapping[int, PullReport] = field(default_factory=dict)


NOTHING = Reports()


class Lines:
    """Lines of runs, remembered while their views stay the same."""

    def __init__(self, make: Callable[[RunView], RunLine] = run_line) -> None:
        """`make` works one out."""
        self._make = make
        self._known: dict[RunKey, tuple[RunView, RunLine]] = {}

    def of(self, views: Iterable[RunView]) -> dict[RunKey, RunLine]:
        """By key. What isn't asked for is forgotten."""
        known = {view.key: self._known.get(view.key) for view in views}
        self._known = {
            view.key: found if (found := known[view.key]) and found[0] is view else (view, self._make(view))
            for view in views
        }
        return {key: line for key, (_, line) in self._known.items()}


def reported(runs: Iterable[RunView], settings: ForgeSettings, now: datetime) -> tuple[RunView, ...]:
    """The runs that a forge is told of: made by a trigger (or all of unchanged commits), not ended long ago."""
    return tuple(run for run in runs if _commit(run, settings) is not None and _is_recent(run, now))


def reports(
    runs: Iterable[RunView], lines: Mapping[RunKey, RunLine], phases: Mapping[str, Phase], settings: ForgeSettings
) -> Reports:
    """What is to be told of these runs. `phases` maps `<job>.<attempt>` to what heartbeats say.

    Of several runs of a workflow on one commit the one submitted last counts.
    """
    newest = sorted(runs, key=lambda run: (run.spec.submitted_at, run.key.name))
    told = {run.key: _told(run, lines[run.key], phases, settings) for run in newest}
    statuses = {}
    for run in newest if settings.report is not Reported.NOTHING else ():
        status = _status(run, told[run.key], settings)
        statuses[status.commit, status.context] = status
    pulls = _pulls(newest, told, settings) if settings.comment else {}
    return Reports(statuses=statuses, pulls=pulls)


def _commit(run: RunView, settings: ForgeSettings) -> str | None:
    """The commit that it says something about; None where it isn't reported. What a run claims isn't trusted."""
    spec = run.spec
    if spec.options.only is not None:
        return None
    if spec.trigger is not None:
        found = spec.trigger.commit
    elif settings.report is Reported.ALL and spec.via is Via.CLI and spec.code.commit == spec.code.snapshot:
        found = spec.code.commit
    else:
        return None
    return found if _COMMIT.fullmatch(found) else None


def _is_recent(run: RunView, now: datetime) -> bool:
    return run.state.finished is None or now - run.state.finished.at < RECENT


def _told(run: RunView, line: RunLine, phases: Mapping[str, Phase], settings: ForgeSettings) -> Told:
    measuring = [planned for planned in run.plan.jobs if planned.job.metrics] if run.plan else []
    return Told(
        line=line,
        running=frozenset(
            job.job
            for job in line.jobs
            if job.status is Status.RUNNING
            or (job.attempt is not None and phases.get(attempt_key(job.job, job.attempt)) in _AT_WORK)
        ),
        metrics={planned.id: planned.job.metrics for planned in measuring},
        folders={planned.id: planned.job.working_dir for planned in measuring},
        link=f"{settings.web.rstrip('/')}/runs/{line.run}" if settings.web else "",
    )


def _status(run: RunView, told: Told, settings: ForgeSettings) -> CommitStatus:
    state, words = verdict(told)
    ref = run.spec.trigger.ref if run.spec.trigger else ""
    return CommitStatus(
        commit=_commit(run, settings) or "",
        context=_plain(f"dstack/{told.line.workflow}", CONTEXT),
        state=state,
        description=_plain(f"{told.line.run} {words}", DESCRIPTION),
        link=told.link,
        ref=next((ref.removeprefix(kind) for kind in ("refs/heads/", "refs/tags/") if ref.startswith(kind)), ""),
    )


def _pulls(newest: list[RunView], told: Mapping[RunKey, Told], settings: ForgeSettings) -> dict[int, PullReport]:
    by_pull: dict[int, list[RunView]] = {}
    for run in newest:
        if run.spec.trigger and run.spec.trigger.pull is not None and run.spec.trigger.pull > 0:
            by_pull.setdefault(run.spec.trigger.pull, []).append(run)
    found: dict[int, PullReport] = {}
    for pull, runs in by_pull.items():
        commit = _commit(runs[-1], settings) or ""
        latest = {run.spec.workflow: told[run.key] for run in runs if _commit(run, settings) == commit}
        shown = tuple(one for _, one in sorted(latest.items()))[:MOST_RUNS]
        found[pull] = PullReport(pull=pull, commit=commit, runs=shown)
    return found


def _plain(text: str, most: int) -> str:
    """On one line, of what can be printed, not longer than `most` characters."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
