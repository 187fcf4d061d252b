"""A runner's duty with hands, for tests: what it asks for is noted, and answered when the test says so."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import msgspec

from dstack.model.job import Job, Resources, job_oid
from dstack.model.pool import Attempt, Capacity
from dstack.model.runspec import Desired
from dstack.model.world import Moment
from runner.duty import Action, Duty, assigned, react
from runner.facts import Given, Rules
from runner.held import Held

ROOT = "5ab98f2089ae" + "0" * 28
REPOSITORY = "repo-12345678"
RUN = "fast-rabbit-1.5ab98f2089ae"
BEGINNING = datetime(2026, 11, 22, tzinfo=UTC)
CAPACITY = Capacity(cpu=2.0, memory=2**33)
RULES = Rules(repository=REPOSITORY, instance="us", executors=frozenset({"process"}), capacity=CAPACITY)

Fact = Callable[[Held, Moment], Held]


def at(ticks: float) -> Moment:
    """The wall clock and the ticks go together."""
    return Moment(wall=BEGINNING + timedelta(seconds=ticks), ticks=ticks)


def a_job(
    name: str = "train",
    *,
    commands: tuple[str, ...] = ("true",),
    artifacts: tuple[str, ...] = ("out",),
    timeout: float | None = None,
    resources: Resources | None = None,
    image: str | None = None,
    grace: float = 10.0,
) -> Job:
    """A job; `name` makes it another one."""
    return Job(
        root=ROOT,
        workflow=name,
        commands=commands,
        artifacts=artifacts,
        timeout=timeout,
        resources=resources or Resources(),
        image=image,
        stop_grace=grace,
    )


def given_job(job: Job | None = None, *, instance: str = "us", order: str = "", store: str = "memory:") -> Given:
    """The first attempt of a job, as assigned."""
    job = job or a_job()
    oid = job_oid(job)
    attempt = Attempt(
        repository=REPOSITORY,
        run=RUN,
        root=ROOT,
        snapshot="1" * 40,
        job=oid[:12],
        attempt=1,
        instance=instance,
        nonce=f"nonce-{job.workflow}",
        log=f"logs/{RUN}/{oid[:12]}/1",
        store=store,
        order=order or job.workflow,
    )
    return Given(attempt=attempt, oid=oid, job=job)


def wanting(one: Given, desired: Desired) -> Given:
    """The same attempt, of which something else is wanted now."""
    return replace(one, attempt=msgspec.structs.replace(one.attempt, desired=desired))


@dataclass
class Hands:
    """`now` in ticks."""

    duty: Duty = field(default_factory=lambda: Duty(capacity=CAPACITY))
    now: float = 0.0

    def assign(self, *given: Given, whole: bool = True) -> list[Action]:
        """These are assigned now, and no others."""
        self.duty = assigned(self.duty, {one.attempt.key: one for one in given}, RULES, whole=whole)
        return self.turn()

    def turn(self, seconds: float = 0.0) -> list[Action]:
        """So much later, what is asked for."""
        self.now += seconds
        self.duty, actions = react(self.duty, at(self.now))
        return list(actions)

    def learn(self, fact: Fact, key: str | None = None) -> list[Action]:
        """A fact about an attempt (the only one), and what is asked for then."""
        held = self.duty.held[key] if key else self.one
        self.duty = self.duty.put(fact(held, at(self.now)))
        return self.turn()

    @property
    def one(self) -> Held:
        """The only attempt in hand."""
        (held,) = self.duty.held.values()
        return held
