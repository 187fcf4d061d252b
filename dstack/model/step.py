"""One job in one turn: conclude its attempt, obey a stop, finish it, or find it ready for the next attempt."""

from dataclasses import dataclass

from dstack.model.events import Ended, Finished, Revoked
from dstack.model.fates import RunnerFates
from dstack.model.job import Job, Reason
from dstack.model.placing import Candidate, misfit
from dstack.model.plan import PlannedJob
from dstack.model.pool import attempt_key
from dstack.model.refused import is_of_fork, is_refusal, may_go_elsewhere, refusers
from dstack.model.resuming import Unknown, restored
from dstack.model.retries import last_revoked, retries_left
from dstack.model.rooms import room_of
from dstack.model.runspec import Desired
from dstack.model.standing_in import stood_in, tell_answer
from dstack.model.states import FRESH, AttemptState, JobState
from dstack.model.status import Status
from dstack.model.turn import OpenAttempt, Turn, Waiting
from dstack.model.world import World

_END = {Desired.STOP: (Status.STOPPED, Reason.STOPPED), Desired.ABORT: (Status.ABORTED, Reason.ABORTED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One job in one turn."""

    turn: Turn
    world: World
    fates: RunnerFates
    planned: PlannedJob
    index: int
    expected: float | None

    @property
    def _job(self) -> Job:
        return self.planned.job

    @property
    def _state(self) -> JobState:
        return self.turn.run.state.jobs.get(self.planned.id, FRESH)

    @property
    def _desired(self) -> Desired:
        return self.turn.desired(self.planned.id)

    @property
    def _stranded(self) -> bool:
        """Whether this is a `--local` run that others must end, since nobody beside its runner does."""
        return self.turn.run.spec.options.only is not None and self.world.only is None

    def take(self) -> None:
        """Decide what is next for it, and add that to the turn."""
        state = self._state
        if state.outcome:
            self.turn.outcomes[self.planned.id] = (state.outcome, state.manifest)
        elif (attempt := state.open) is None:
            self._unassigned(state)
        elif attempt.ended:
            self._conclude(state, attempt, attempt.ended)
        elif not self._stranded and (why := self._back(attempt)):
            self._take_back(state, attempt, why)
        elif why := self.fates.of(self._key(attempt), attempt.assigned):
            self._lose(state, attempt, why)
        else:
            order = self.turn.order(self.index)
            self.turn.open.append(OpenAttempt(planned=self.planned, assigned=attempt.assigned, order=order))

    def _conclude(self, state: JobState, attempt: AttemptState, ended: Ended) -> None:
        """The runner's claim counts: believe it, unless another try is due."""
        run, wanted = self.turn.run, self._desired is Desired.RUN
        if wanted and is_refusal(attempt) and may_go_elsewhere(run, self._job, state, self.world, self.fates):
            self._revoke(attempt, ended.reason, ended.message, ended, begun=False)
            self._wait(state, None, attempt.assigned.restore)
            return
        retries = retries_left(self._job, state, ended.reason) if ended.status is Status.FAILED else 0
        if retries and wanted:
            self._revoke(
                attempt, ended.reason, f"attempt {attempt.number} failed ({ended.message or ended.reason})", ended
            )
            self._wait(state, attempt, ended.manifest)
            return
        message = ended.message or f"attempt {attempt.number} is {ended.status} on {attempt.assigned.runner}"
        self._finish(ended.status, ended.reason, message, attempt=attempt)

    def _lose(self, state: JobState, attempt: AttemptState, why: str) -> None:
        self._revoke(attempt, Reason.LOST, f"attempt {attempt.number} is given up: {why}", None)
        if self._desired is not Desired.RUN:
            self._finish(_END[self._desired][0], Reason.LOST, why, attempt=attempt)
        elif not self._stranded and retries_left(self._job, state, Reason.LOST):
            self._wait_restored(state, attempt)
        else:
            self._finish(Status.FAILED, Reason.LOST, f"{why}, and no retry is left", attempt=attempt)

    def _take_back(self, state: JobState, attempt: AttemptState, why: str) -> None:
        """It was never begun: another takes its place, and no try is used up."""
        self._revoke(attempt, Reason.INTERRUPTED, f"attempt {attempt.number} is given back: {why}", None, begun=False)
        if self._desired is Desired.RUN:
            self._wait(state, None, attempt.assigned.restore)
        else:
            status, reason = _END[self._desired]
            self._finish(status, reason, f"{reason} before it had started", attempt=attempt)

    def _back(self, attempt: AttemptState) -> str:
        return self.fates.back(self._key(attempt), attempt.assigned, self._job)

    def _key(self, attempt: AttemptState) -> str:
        return attempt_key(self.planned.id, attempt.number)

    def _unassigned(self, state: JobState) -> None:
        if self._desired is not Desired.RUN:
            status, reason = _END[self._desired]
            self._finish(status, reason, f"{reason} before it had started")
            return
        failed = [(need, self.turn.outcomes.get(need.job, (None, None))[0]) for need in self._job.needs]
        for need, outcome in failed:
            if outcome and outcome is not Status.DONE:
                status = outcome if outcome in (Status.STOPPED, Status.ABORTED) else Status.SKIPPED
                self._finish(status, Reason.DEPENDENCY, f"{need.workflow} ({need.job}) is {outcome}")
                return
        if self._stranded:
            only = self.turn.run.spec.options.only
            self._finish(Status.FAILED, Reason.LOST, f"its runner {only} is gone, and it could run nowhere else")
        elif all(outcome is Status.DONE for _, outcome in failed) and not stood_in(
            self.turn, self.planned, state, self.world
        ):
            if why := self._unfit():
                self._finish(Status.FAILED, Reason.INVALID, f"it can't run with --local: this machine {why}")
            else:
                self._wait_restored(state, last_revoked(state))

    def _unfit(self) -> str:
        """Of a `--local` run, decided beside its runner: why that can never take it. Nobody else will come."""
        runner = self.world.runners.get(self.turn.run.spec.options.only or "")
        return misfit(self._job, room_of(runner)) if runner and self.world.only else ""

    def _wait_restored(self, state: JobState, earlier: AttemptState | None) -> None:
        """Queue the next attempt, from what was saved last, when that is known."""
        found = restored(self.turn.run, self.planned.id, self._job, self.turn.store, self.world.sets)
        if isinstance(found, Unknown):
            self.turn.pointers.add(found.pointer)
        else:
            self._wait(state, earlier, found)

    def _wait(self, state: JobState, earlier: AttemptState | None, restore: str | None) -> None:
        """Queue the next attempt; after a failure, when its backoff is over."""
        backoff = self._job.retry.backoff if self._job.retry and earlier else 0.0
        if backoff and earlier and earlier.revoked and earlier.revoked.begun:
            since = self.world.settled.get(attempt_key(self.planned.id, earlier.number), self.turn.now.ticks)
            if self.turn.now.ticks < since + backoff:
                self.turn.wakes.append(since + backoff)
                return
        lost_on = frozenset(a.assigned.runner for a in state.tried if a.revoked and a.revoked.reason is Reason.LOST)
        candidate = Candidate(
            key=self.planned.id,
            job=self._job,
            order=self.turn.order(self.index),
            expected=self.expected,
            avoid=lost_on | self.turn.refusers,
            only=self.turn.run.spec.options.only,
            refused=refusers([state]),
            fork=is_of_fork(self.turn.run),
        )
        number = state.attempts[-1].number + 1 if state.attempts else 1
        self.turn.ready.append(Waiting(planned=self.planned, candidate=candidate, attempt=number, restore=restore))

    def _revoke(
        self, attempt: AttemptState, reason: Reason, message: str, ended: Ended | None, *, begun: bool = True
    ) -> None:
        self.turn.add(
            self.planned.oid,
            Revoked(
                seq=0,
                at=self.turn.now.wall,
                message=message,
                generation=self._state.generation,
                attempt=attempt.number,
                reason=reason,
                exit_code=ended.exit_code if ended else None,
                manifest=ended.manifest if ended else attempt.assigned.restore,
                begun=begun,
            ),
        )

    def _finish(self, status: Status, reason: Reason, message: str, *, attempt: AttemptState | None = None) -> None:
        ended = attempt.ended if attempt else None
        event = Finished(
            seq=0,
            at=self.turn.now.wall,
            message=message,
            generation=self._state.generation,
            status=status,
            reason=reason,
            attempt=attempt.number if attempt else None,
            runner=attempt.assigned.runner if attempt else None,
            exit_code=ended.exit_code if ended else None,
            manifest=ended.manifest if ended else None,
        )
        self.turn.add(self.planned.oid, event)
        self.turn.outcomes[self.planned.id] = (status, event.manifest)
        tell_answer(self.turn, self.planned, event, self.world)
