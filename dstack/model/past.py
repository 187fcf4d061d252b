"""What the runs that there are have finished: whether a hint about a key is true. Pure, with memory for one look."""

from collections.abc import Iterable

from dstack.model.job import Job
from dstack.model.reuse import Answer, Hint, Parts, answer_of, job_parts
from dstack.model.status import Status
from dstack.model.world import RunView


class Past:
    """The finished jobs of these runs."""

    def __init__(self, runs: Iterable[RunView]) -> None:
        """Looks nothing up yet."""
        self._runs = {str(run.key): run for run in runs}
        self._jobs: dict[str, dict[str, Job]] = {}

    def parts(self, run: str, job: str) -> Parts | None:
        """The parts of the key that a job of a run has answered; None where it isn't DONE."""
        view = self._runs.get(run)
        found = self._made(run, job)
        if view is None or found is None:
            return None
        return job_parts(found[0], view.spec.code.contents, lambda need: self._made(run, need))

    def answer(self, key: str, hint: Hint) -> Answer | None:
        """The answer that a hint promises for this key, if its run's notes say so."""
        parts = self.parts(hint.run, hint.job)
        if parts is None or parts.key != key:
            return None
        return answer_of(hint.run, hint.job, self._runs[hint.run].state.job(hint.job))

    def _made(self, run: str, job: str) -> tuple[Job, str | None] | None:
        view = self._runs.get(run)
        if view is None or view.plan is None:
            return None
        if run not in self._jobs:
            self._jobs[run] = {planned.id: planned.job for planned in view.plan.jobs}
        state = view.state.job(job)
        found = self._jobs[run].get(job)
        return (found, state.manifest) if found and state.outcome is Status.DONE else None
