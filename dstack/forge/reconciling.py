"""Makes a forge show what it should: asks what stands there, and writes what differs. One write at a time, gently."""

import logging
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from dstack.forge.answers import LONGEST, Denied
from dstack.forge.forge import Comment, Forge
from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.reports import CommitStatus, PullReport, Reports

LOG = logging.getLogger(__name__)

# Between two writes (docs.github.com, best practices for using the REST API: at least a second).
PACE = 1.0
# A pull request's comment is written no oftener.
COMMENT_PACE = 5.0
# How a commit's status ended is looked at once more: another controller may have written what it still believed.
LOOK_AGAIN = 60.0
FIRST_WAIT, LAST_WAIT = 2.0, 900.0
# The token isn't enough: that is mended by a person.
DENIED_WAIT = 60.0
# One thing that can't be written is tried again when it is to be something else, or after this time.
GIVEN_UP = 900.0

_Key = tuple[str, str] | int
Render = Callable[[PullReport], tuple[str, bool]]


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """What was sent to one forge, and what is to be sent. Times are monotonic seconds.

    `marker` begins comments of ours. `render` gives a comment's text, and whether it is whole: else it is looked at
    again. `jitter` gives a fresh number from 0 to 1; `tell` logs a sentence on a topic once, `over` its end.
    """

    forge: Forge
    marker: str
    render: Render
    jitter: Callable[[], float]
    tell: Callable[[str, str], None]
    over: Callable[[str, str], None]
    denied: bool = False
    _me: str | None = None
    _asked_me: bool = False
    _sent: dict[tuple[str, str], CommitStatus] = field(default_factory=dict)
    _again: dict[tuple[str, str], float] = field(default_factory=dict)
    _shown: dict[int, PullReport] = field(default_factory=dict)
    _written: dict[int, float] = field(default_factory=dict)
    _failed: dict[_Key, tuple[object, float]] = field(default_factory=dict)
    _failures: int = 0
    _until: float = 0.0

    def step(self, wanted: Reports, now: float) -> float | None:
        """At most one thing is brought to be as it should. Answers in how many seconds to come again; None: on news."""
        self._forget(wanted)
        if now < self._until:
            return self._until - now
        key = self._next(wanted, now)
        if key is None:
            return self._due(wanted, now)
        try:
            wrote = self._pull(wanted.pulls[key], now) if isinstance(key, int) else self._status(wanted, key, now)
        except DstackError as error:
            return self._trouble(error, key, wanted, now)
        self._failures, self.denied = 0, False
        self.over("forge", f"{self.forge.place.host} can be reported to again")
        return PACE if wrote else 0.0

    def _next(self, wanted: Reports, now: float) -> _Key | None:
        """What differs first. Statuses go before comments."""
        for key, status in wanted.statuses.items():
            if not self._gave_up(key, status, now) and (
                self._sent.get(key) != status or self._again.get(key, now + 1) <= now
            ):
                return key
        for pull, report in wanted.pulls.items():
            if not self._gave_up(pull, report, now) and self._shown.get(pull) != report and self._rests(pull, now) <= 0:
                return pull
        return None

    def _due(self, wanted: Reports, now: float) -> float | None:
        """When something will have to be done though nothing changes."""
        pulls = (self._rests(pull, now) for pull, report in wanted.pulls.items() if self._shown.get(pull) != report)
        times = [*pulls, *(at - now for at in self._again.values()), *(at - now for _, at in self._failed.values())]
        return max(0.0, min(times)) if (times := [time for time in times if time > 0]) else None

    def _rests(self, pull: int, now: float) -> float:
        return self._written.get(pull, now - COMMENT_PACE) + COMMENT_PACE - now

    def _gave_up(self, key: _Key, thing: object, now: float) -> bool:
        failed = self._failed.get(key)
        return failed is not None and failed[0] == thing and now < failed[1]

    def _status(self, wanted: Reports, key: tuple[str, str], now: float) -> bool:
        """Whether something had to be written."""
        status = wanted.statuses[key]
        differs = self.forge.statuses(status.commit).get(status.context) != self.forge.as_posted(status)
        if differs:
            self.forge.post(status)
            LOG.info("the forge shows %s of %s as %s", status.context, status.commit[:12], status.state)
        self._sent[key] = status
        self._failed.pop(key, None)
        if differs and status.state.ended:
            self._again[key] = now + LOOK_AGAIN
        else:
            self._again.pop(key, None)
        return differs

    def _pull(self, report: PullReport, now: float) -> bool:
        body, whole = self.render(report)
        ours = self._ours(report.pull)
        if not ours:
            made = self.forge.add_comment(report.pull, body)
            if self._me is None:
                self._me = made.author or None
            LOG.info("pull request %d has a comment of dstack", report.pull)
            # Another controller may have written one at the same moment.
            ours = self._ours(report.pull)
        elif ours[0].body.strip() != body.strip():
            self.forge.change_comment(report.pull, ours[0].id, body)
        for one in ours[1:]:
            self.forge.remove_comment(report.pull, one.id)
        self._shown[report.pull] = report
        self._written[report.pull] = now
        if whole:
            self._failed.pop(report.pull, None)
        else:
            del self._shown[report.pull]
            self._failed[report.pull] = (report, now + LOOK_AGAIN)
        return True

    def _ours(self, pull: int) -> list[Comment]:
        """Our comments, the oldest first: that one stays, for every controller alike. Nobody else's is touched."""
        if not self._asked_me:
            self._me, self._asked_me = self.forge.me(), True
        found = [
            one
            for one in self.forge.comments(pull)
            if one.body.startswith(self.marker) and (one.author == self._me if self._me is not None else one.bot)
        ]
        return sorted(found, key=lambda one: one.id)

    def _trouble(self, error: DstackError, key: _Key, wanted: Reports, now: float) -> float:
        """Nothing of it matters to runs: it is told once, and tried again later."""
        if isinstance(error, Failed) and not isinstance(error, Denied):
            thing = wanted.pulls[key] if isinstance(key, int) else wanted.statuses[key]
            if key not in self._failed:
                LOG.warning("this can't be reported: %s", error)
            self._failed[key] = (thing, now + GIVEN_UP)
            return PACE
        news = self._failures == 0 or self.denied != isinstance(error, Denied)
        self._failures += 1
        self.denied = isinstance(error, Denied)
        wait = (DENIED_WAIT if self.denied else FIRST_WAIT) * 2.0 ** min(self._failures - 1, 10)
        wait = min(LAST_WAIT, wait) * (0.75 + self.jitter() / 2)
        asked = error.retry_after if isinstance(error, Unavailable) else None
        wait = min(LONGEST, max(wait, asked or 0.0))
        self._until = now + wait
        if news:
            self.tell("forge", f"runs go on, but can't be reported for now: {error}")
        return wait

    def _forget(self, wanted: Reports) -> None:
        """What is no longer to be told of."""
        for kept in (self._sent, self._again):
            _keep(kept, wanted.statuses)
        for shown in (self._shown, self._written):
            _keep(shown, wanted.pulls)
        _keep(self._failed, [*wanted.statuses, *wanted.pulls])


def _keep(kept: dict[Any, Any], wanted: Container[Any]) -> None:
    for key in [key for key in kept if key not in wanted]:
        del kept[key]
