"""What is likely to become of a run's jobs: reused, and from where, or new, and why. The controller decides.

It takes a few small reads of the store and of earlier runs, for the first jobs alone; nothing depends on it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cli.lines import JobLine, RunLine
from cli.reading import Reader
from cli.session import Seen, Session
from cli.summaries import load_runs
from dstack.model import keys, refs
from dstack.model.codec import decode
from dstack.model.errors import DstackError, Invalid
from dstack.model.job import Job
from dstack.model.past import Past
from dstack.model.plan import Plan
from dstack.model.refs import RunKey
from dstack.model.reuse import (
    Answer,
    Hint,
    Parts,
    difference_text,
    differences,
    job_parts,
    may_reuse,
    parts_of,
    run_name,
)
from dstack.model.runspec import RunSpec
from dstack.model.status import Status
from dstack.model.world import RunView
from dstack.store.store import Store

JOBS = 20
SECONDS = 1.0
EARLIER = 5
HINT_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`answer`: what stands in. Else `differs` from the job of an earlier run, `since`. `waits`: for the jobs it needs.

    `forbidden`: why nothing may stand in.
    """

    answer: Answer | None = None
    differs: tuple[str, ...] = ()
    since: str = ""
    waits: bool = False
    forbidden: str = ""

    @property
    def text(self) -> str:
        """`reused from fast-rabbit-1`, `new (commands, since fast-rabbit-1)`; empty where it can't be told yet."""
        if self.answer:
            return f"reused from {run_name(self.answer.run)}"
        if self.differs:
            return f"new ({difference_text(self.differs)}, since {self.since})"
        if self.forbidden:
            return f"new ({self.forbidden})"
        return "" if self.waits else "new"


def outlooks(session: Session, seen: Seen, spec: RunSpec, plan: Plan) -> Iterator[tuple[str, Outlook]]:
    """The ids of a run's first jobs, and what is likely to become of each. What can't be told in time is left out."""
    try:
        yield from _Look(session, seen, spec).all(plan)
    except DstackError:
        return  # a store that is away: the run says so itself


@dataclass(slots=True)
class _Look:
    session: Session
    seen: Seen
    spec: RunSpec
    _reader: Reader = field(init=False)
    _store: Store = field(init=False)
    _views: dict[str, RunView | None] = field(default_factory=dict)
    _runs: tuple[RunLine, ...] | None = None
    _made: dict[str, tuple[Job, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reader, self._store = Reader(self.session), self.seen.store()

    def all(self, plan: Plan) -> Iterator[tuple[str, Outlook]]:
        end = time.monotonic() + SECONDS
        for planned in plan.jobs[:JOBS]:
            if time.monotonic() > end:
                break
            outlook = self._of(planned.job)
            if outlook.answer:
                self._made[planned.id] = (planned.job, outlook.answer.manifest)
            yield planned.id, outlook

    def _of(self, job: Job) -> Outlook:
        if not may_reuse(self.spec, job):
            return Outlook(forbidden="--no-cache" if not self.spec.options.cache else "cache: false")
        parts = job_parts(job, self.spec.code.contents, self._made.get)
        answer = self._answer(parts) if parts else None
        if answer:
            return Outlook(answer=answer)
        since, differs = self._compared(job, parts)
        return Outlook(differs=differs, since=since, waits=parts is None)

    def _answer(self, parts: Parts) -> Answer | None:
        data = self._store.get(keys.cache(parts.key), limit=HINT_LIMIT)
        if data is None:
            return None
        try:
            hint = decode(data, Hint, "a hint", limit=HINT_LIMIT)
            view = self._view(RunKey.from_text(hint.run).name)
        except Invalid:
            return None
        answer = Past([view] if view else []).answer(parts.key, hint)
        gone = answer and answer.manifest and self._store.head(keys.manifest(answer.manifest)) is None
        return None if gone else answer

    def _view(self, name: str) -> RunView | None:
        if name not in self._views:
            there = refs.run_branch(name) in self.seen.found
            view = self._reader.view(self.seen, name) if there else None
            self._views[name] = view if isinstance(view, RunView) else None
        return self._views[name]

    def _compared(self, job: Job, parts: Parts | None) -> tuple[str, tuple[str, ...]]:
        """Of the latest runs that have done this workflow the one that differs least, and in what."""
        found: list[tuple[int, str, tuple[str, ...]]] = []
        for run in self._earlier(job.workflow):
            view = self._view(run.run)
            past = Past([view] if view else [])
            for line in _nearest(run, job):
                before = past.parts(str(run.key), line.job)
                if before:
                    differs = self._differences(before, job, parts)
                    origin = line.reused_from.run if line.reused_from else run.run
                    found.append((len(differs), origin, differs))
        _, since, differs = min(found, key=lambda one: one[0], default=(0, "", ()))
        return since, differs

    def _differences(self, before: Parts, job: Job, parts: Parts | None) -> tuple[str, ...]:
        if parts is not None:
            return differences(before, parts)
        # What it starts from isn't known: so compare it as if that were the same.
        content = self.spec.code.contents.get(job.workflow)
        return () if content is None else differences(before, parts_of(job, content, before.inputs))

    def _earlier(self, workflow: str) -> Sequence[RunLine]:
        """The latest runs in which a job of this workflow is DONE."""
        if self._runs is None:
            self._runs = load_runs(self.session, self.seen)
        done = (
            run for run in self._runs if any(job.workflow == workflow and job.status is Status.DONE for job in run.jobs)
        )
        return [run for _, run in zip(range(EARLIER), done, strict=False)]


def _nearest(run: RunLine, job: Job) -> list[JobLine]:
    """Of the run's DONE jobs of the same workflow: the same combination, else any."""
    done = [line for line in run.jobs if line.workflow == job.workflow and line.status is Status.DONE]
    return [line for line in done if line.matrix == job.matrix] or done[:1]


def summary(found: Mapping[str, Outlook], jobs: Sequence[str]) -> str:
    """The outlook of several jobs of a workflow in a few words; empty where not all are known."""
    if not all(job in found for job in jobs):
        return ""
    texts = {found[job].text for job in jobs}
    if len(texts) == 1:
        return texts.pop()
    reused = sum(found[job].answer is not None for job in jobs)
    return f"{reused} of {len(jobs)} reused" if reused else "new"
