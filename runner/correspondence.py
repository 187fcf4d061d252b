"""When a runner reads from and writes to the state remote, and what it knows from there. Part of the agent's loop."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from dstack.model.bucket import Bucket, Reach
from dstack.model.errors import Invalid, Unavailable
from dstack.model.observation import Observation
from dstack.model.personal import overlaid
from dstack.model.pool import Registration, RunnerState
from dstack.model.settings import Settings, parse_settings
from dstack.model.world import Moment
from runner.exchange import Exchanged, Wish
from runner.facts import pause
from runner.profile import Profile
from runner.registering import Claims, Standing, Step, judge
from runner.reports import Pushing, Report, pace_of

LOG = logging.getLogger(__name__)

RIVAL_SECONDS = 1.0
POLLS_PER_LEASE = 2


class Correspondence:
    """One exchange at a time. `standing` says whether the name is ours; `seen` is the last observation."""

    def __init__(self, profile: Profile, now: Moment) -> None:
        """The store that is to be registered is filled in when a heartbeat has been written there."""
        self.standing = Standing(wanted=profile.registration, takeover=profile.takeover)
        self.settings, self._own = Settings(), profile.own
        self.seen: Observation | None = None
        self.polls = 0
        self.retry_after: float | None = None
        self.busy = False
        self.poll_wanted = True
        self._pace = pace = profile.pace
        bucket = Bucket.full(interval=pace.interval, burst=pace.burst, now=now.ticks)
        self._pushing = Pushing(pace=pace, bucket=bucket)
        self._claims: Claims | None = None
        self._tries = 0
        self._writes = 0
        self._again = now.ticks
        self._problems: frozenset[str] = frozenset()

    @property
    def registered(self) -> bool:
        """Whether the remote shows our name, instance and start."""
        return self.standing.ours and self.standing.step is not Step.STOP

    def want(self, *, store: str | None, state: RunnerState, now: Moment) -> None:
        """What should stand in the registration from now on. `store` None: not yet known."""
        wanted = self.standing.wanted
        if store is not None and (wanted.store, wanted.state) != (store, state):
            changed = msgspec.structs.replace(wanted, store=store, state=state)
            self.standing = replace(self.standing, wanted=changed)
            self._judge(now)

    def wish(self, pending: Sequence[Report], now: Moment) -> Wish | None:
        """The exchange that is due now, if one is; it is then under way until `take`."""
        self._pushing = self._pushing.seen(pending, now.ticks)
        if self.busy or now.ticks < self._again:
            return None
        due = self._pushing.due_at(pending, now.ticks)
        told = self._pushing.allowed(pending, now.ticks) if due is not None and due <= now.ticks else ()
        registration = self._registration(now)
        if not (told or registration or self.poll_wanted):
            return None
        if told or registration:
            self._pushing = self._pushing.pushed(now.ticks)
        self._writes += 1 if registration else 0
        self.busy, self.poll_wanted = True, False
        return Wish(reports=told, registration=registration)

    def take(self, result: Exchanged, now: Moment) -> None:
        """What came of an exchange."""
        self.busy = False
        self._pushing = self._pushing.won({one.run for one in result.written}).refuse(result.refused, now.ticks)
        for run, why in result.refused.items():
            LOG.warning("the report on %s was not accepted, it is tried again: %s", run, why)
        if result.error is not None and result.seen is None:
            self._is_away(result.error, now)
            return
        if self._tries:
            LOG.info("the state remote is back")
        self._tries, self._again, self.retry_after = 0, now.ticks, None
        if result.seen is not None:
            self.polls += 1
            self._read(result.seen, now)
        if result.claims is not None:
            self._claims = result.claims
            self._judge(now)
        self._pace_registering(now)

    def next_at(self, pending: Sequence[Report], now: Moment) -> float | None:
        """When `wish` is to be asked again, in ticks."""
        if self.busy:
            return None
        due = self._pushing.due_at(pending, now.ticks)
        if self.poll_wanted or self._registration(now):
            due = now.ticks
        return None if due is None else max(due, self._again)

    def _registration(self, now: Moment) -> Registration | None:
        """What to write now; None where nothing is to be, or it isn't known yet where the heart beats."""
        wanted = self.standing.wanted
        if self.standing.step is not Step.WRITE or not wanted.store:
            return None
        return msgspec.structs.replace(wanted, at=now.wall)

    def _judge(self, now: Moment) -> None:
        if self._claims is None:
            return
        before = self.standing
        self.standing = judge(before, self._claims, lease=self.settings.lease, now=now)
        if self.standing.why and self.standing.why != before.why:
            LOG.warning("%s", self.standing.why)

    def _pace_registering(self, now: Moment) -> None:
        """Look at a rival every second; write again what was refused, but ever more rarely."""
        if self.standing.step is Step.WAIT and self._claims is not None:
            self._again = now.ticks + RIVAL_SECONDS
            self.poll_wanted = True
        elif self.standing.step is not Step.WRITE:
            self._writes = 0
        elif self._writes > 1:
            self._again = now.ticks + pause(self._writes - 1, self.standing.wanted.instance)
            LOG.warning("the registration could not be written; trying again")

    def _read(self, seen: Observation, now: Moment) -> None:
        if seen is self.seen:
            return
        config_changed = self.seen is None or self.seen.config != seen.config
        self.seen = seen
        if config_changed:
            try:
                self.settings = overlaid(parse_settings(seen.config), self._own)
            except Invalid as error:
                LOG.error("the shared settings are ignored: %s", error)  # noqa: TRY400 (nothing of ours failed)
            pace = pace_of(Reach.FORGE) if self.settings.throttle else self._pace
            self._pushing = self._pushing.paced(pace, now.ticks)
        for problem in frozenset(seen.problems) - self._problems:
            LOG.info("the state remote holds what can't be read: %s", problem)
        self._problems = frozenset(seen.problems)

    def _is_away(self, error: Exception, now: Moment) -> None:
        self._tries += 1
        self.retry_after = error.retry_after if isinstance(error, Unavailable) else None
        # A controller waits two leases for a poll, also after an outage: what is back must be seen within one.
        longest = self.settings.lease / POLLS_PER_LEASE
        wait = max(min(pause(self._tries, self.standing.wanted.instance, error), longest), self.retry_after or 0.0)
        self._again = now.ticks + wait
        self.poll_wanted = True
        LOG.log(logging.WARNING if self._tries == 1 else logging.DEBUG, "%s; trying again in %.1f s", error, wait)
