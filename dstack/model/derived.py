"""Whether an assignment is what follows from the run's root: the job derived anew, by the planner of all. Pure."""

from dstack.model import keys
from dstack.model.observation import RunRecord
from dstack.model.plan import PlannedJob
from dstack.model.pool import Attempt


def alteration(attempt: Attempt, planned: PlannedJob, record: RunRecord, runner: str) -> str:
    """What of an attempt contradicts the root; empty where nothing does.

    The digests of inputs that jobs of the run have made, of what is restored, and the store stand in no root: they are
    the controller's word.
    """
    spec = record.spec
    checks = (
        ("run", attempt.run == str(record.key) and attempt.root == record.root),
        ("repository", attempt.repository == spec.repository),
        ("job", attempt.job == planned.id),
        ("code (snapshot)", attempt.snapshot == spec.code.snapshot),
        ("log", attempt.log == keys.log(str(record.key), planned.id, attempt.attempt)),
        ("runner", spec.options.only in {None, runner}),
        ("inputs", _are_its_inputs(attempt, planned)),
    )
    return ", ".join(name for name, same in checks if not same)


def _are_its_inputs(attempt: Attempt, planned: PlannedJob) -> bool:
    """Those of tags are known by digest. Others come from jobs that it needs, each once, under the folder planned."""
    job = planned.job
    tagged = [(one.manifest, one.under) for one in attempt.inputs if not one.job]
    needed = [(one.job, one.under) for one in attempt.inputs if one.job]
    allowed = {(need.job, need.under) for need in job.needs}
    once = len(set(needed)) == len(needed)
    return tagged == [(one.manifest, one.under) for one in job.tagged] and once and set(needed) <= allowed
