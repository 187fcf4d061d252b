"""Whether a run may be executed here: its commits verified, its job derived anew, nothing from forks unless allowed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dstack.ledger.objects import Damaged, Objects
from dstack.ledger.verifying import Verifier
from dstack.model.derived import alteration
from dstack.model.errors import DstackError, Invalid
from dstack.model.job import Job, Reason
from dstack.model.observation import Observation, RunRecord
from dstack.model.plan import PlannedJob
from dstack.model.planner import make_plan
from dstack.model.pool import Attempt
from dstack.model.refs import RunKey
from dstack.model.settings import parse_settings
from dstack.model.signature import Distrusted
from dstack.model.views import our_run
from runner.held import Failure
from runner.trust import Trust

LOG = logging.getLogger(__name__)

UNSET = "signed runs are demanded, and no signers are set here: `dstack-runner config --signers FILE`"

_Jobs = dict[str, PlannedJob]


@dataclass(slots=True, kw_only=True)
class Judge:
    """Judges what is assigned, one look at the remote after the other; in the thread that has the ledger.

    `objects`: those of the ledger. `pause`: why nothing at all can be judged, and so nothing be begun.
    """

    trust: Trust = field(default_factory=Trust)
    runner: str = ""
    objects: Callable[[], Objects] | None = None
    pause: str = ""
    _verifier: Verifier | None = None
    _config: bytes | None = None
    _demanded: bool = False
    _verdicts: dict[str, str] = field(default_factory=dict)
    _plans: dict[str, _Jobs | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The file of signers is read at each look."""
        file = self.trust.file
        self._verifier = Verifier(file) if file else None
        self._demanded = self.trust.signed

    def look(self, seen: Observation) -> None:
        """Begin a look. The shared settings may demand signed runs where our own don't, and not the other way round."""
        if seen.config is not self._config:
            self._config = seen.config
            try:
                self._demanded = self.trust.signed or parse_settings(seen.config).signed
            except Invalid as error:
                LOG.warning("what is demanded of runs stays as it was: %s", error)
        self._verdicts = {}
        given = seen.assignments.get(self.runner)
        roots = {one.root for one in given.attempts.values()} if given else set()
        self._plans = {root: plan for root, plan in self._plans.items() if root in roots}
        self._tell(self._why_not())

    def verdict(self, attempt: Attempt, oid: str, job: Job | Failure, seen: Observation) -> Job | Failure | None:
        """The job to execute, or why it isn't; None while that can't be told. `job` is what the assignment holds."""
        record = our_run(seen, RunKey.from_text(attempt.run).name)
        known = record is not None and (str(record.key), record.root) == (attempt.run, attempt.root)
        if record is not None and known and (refusal := self._of_fork(record, job)):
            return refusal
        if not self._demanded:
            return job
        if self.pause:
            return None
        if record is None or not known:
            return _refusal(f"there is no run {attempt.run} whose commits could be verified")
        return self._derived(attempt, oid, record)

    def _derived(self, attempt: Attempt, oid: str, record: RunRecord) -> Job | Failure | None:
        try:
            if why := self._distrust(record.tip):
                return _refusal(f"only signed runs are executed here: {why}")
        except Damaged as error:
            LOG.warning("the commits of %s can't be verified yet: %s", record.name, error)
            return None
        except DstackError as error:
            self._tell(f"signatures can't be verified: {error}")
            return None
        return self._anew(attempt, oid, record)

    def _anew(self, attempt: Attempt, oid: str, record: RunRecord) -> Job | Failure:
        """The job as it follows from a root that is trusted, whatever the assignment holds."""
        jobs = self._jobs(record)
        if isinstance(jobs, str):
            return _refusal(f"its jobs can't be derived from the signed root: {jobs}")
        planned = jobs.get(oid)
        if planned is None:
            return _refusal(f"the assignment was altered: {oid[:12]} is no job of the signed run")
        if changed := alteration(attempt, planned, record, self.runner):
            return _refusal(f"the assignment was altered: it contradicts the signed run in its {changed}")
        return planned.job

    def _distrust(self, tip: str) -> str:
        """Why the branch isn't trusted; empty where it is. Raises Failed, Invalid, Damaged."""
        if tip not in self._verdicts and self._verifier and self.objects:
            try:
                self._verifier.check_chain(self.objects(), tip)
                self._verdicts[tip] = ""
            except Distrusted as error:
                self._verdicts[tip] = str(error)
        return self._verdicts.get(tip, UNSET)

    def _jobs(self, record: RunRecord) -> _Jobs | str:
        """The jobs that follow from the root, by full ids; or why none do."""
        if record.root not in self._plans:
            try:
                plan = make_plan(record.root, record.spec, record.workflows, record.variables)
                self._plans[record.root] = {planned.oid: planned for planned in plan.jobs}
            except Invalid as error:
                self._plans[record.root] = str(error)
        return self._plans[record.root]

    def _of_fork(self, record: RunRecord, job: Job | Failure) -> Failure | None:
        trigger = record.spec.trigger
        if trigger is None or not trigger.fork:
            return None
        message = ""
        if not self.trust.forks:
            message = "its code is from a fork (`dstack-runner config --forks` allows that)"
        elif isinstance(job, Job) and (job.secrets or job.volumes):
            message = "its code is from a fork, which gets no secrets and no volumes"
        return (
            Failure(reason=Reason.REJECTED, message=f"this runner can't take the job: {message}") if message else None
        )

    def _why_not(self) -> str:
        if not self._demanded:
            return ""
        if self._verifier is None:
            return UNSET
        try:
            self._verifier.allowed()
        except DstackError as error:
            return f"signatures can't be verified: {error}"
        return ""

    def _tell(self, pause: str) -> None:
        if pause != self.pause:
            LOG.error("no job is begun: %s", pause) if pause else LOG.info("jobs are begun again")
        self.pause = pause


def _refusal(message: str) -> Failure:
    return Failure(reason=Reason.SIGNATURE, message=message)
