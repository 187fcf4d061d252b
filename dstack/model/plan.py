"""A run expanded into jobs: a pure function of the run's root, so anyone can compute the same ids."""

from dstack.model.codec import Value
from dstack.model.job import Job


class PlannedJob(Value, frozen=True, kw_only=True):
    """A job with the id its blob has in git."""

    oid: str
    job: Job

    @property
    def id(self) -> str:
        """The 12 digits users see."""
        return self.oid[:12]


class Plan(Value, frozen=True, kw_only=True):
    """All jobs of a run, each after the jobs it needs."""

    jobs: tuple[PlannedJob, ...]
