"""The controller's composition root: a ledger in git, a store, the clock, and a loop that wakes it."""

import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler

from controller.archiving import Archiving, NoArchive
from controller.cache import StoreCache
from controller.firing import CodeSource
from controller.fleet import Progress
from controller.pull_bases import PullBases
from controller.pulse import StorePulse
from controller.reporting import NoReporter, Reporter
from controller.triggering import NoTriggers, Triggering
from controller.trusting import Trusting
from controller.turn import Controller
from dstack.ledger.archive import Archive
from dstack.ledger.ledger import Ledger
from dstack.ledger.objects import Objects
from dstack.ledger.telling import Telling
from dstack.ledger.waking import Loop
from dstack.model import bucket
from dstack.model.bucket import Reach
from dstack.model.errors import DstackError
from dstack.model.forge import ForgeSettings
from dstack.model.personal import Layer
from dstack.model.refs import RunKey
from dstack.model.tags import TaggedFiles, TaggedRun
from dstack.model.world import Moment
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

NONCE_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    """What a controller is made of. `store` is a URL, `open_store` opens one; `watched`: a local remote's folder.

    `only`: decide for this run alone. `personal`: settings that hold here, over the shared ones.
    `open_archive`: where finished runs go; without it they stay. `reporter` is told of runs. `timers`: shared with
    other daemons; `longest`: how many seconds what fails waits at most. `objects`: the ledger's, to verify what is
    signed. `code`: where triggers look; without it there are none.
    """

    ledger: Ledger
    store: str
    open_store: Callable[[str], Store]
    watched: Path | None
    reach: Reach = Reach.LOCAL
    poll: float = bucket.POLL_SECONDS[Reach.LOCAL]
    only: RunKey | None = None
    personal: tuple[Layer, ...] = ()
    open_archive: Callable[[], Archive] | None = None
    reporter: Reporter | None = None
    timers: BackgroundScheduler | None = None
    longest: float | None = None
    objects: Callable[[], Objects] | None = None
    code: "CodeParts | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeParts:
    """`open` opens the code remote; `tagged` reads what a tag names. `poll`: seconds between two looks at it.

    `watched`: the code is on this machine, where a look is cheap: each turn takes one. `bases` asks the forge where
    pull requests go.
    """

    open: Callable[[], CodeSource]
    tagged: Callable[[str], TaggedRun | TaggedFiles]
    poll: float
    watched: bool
    bases: Callable[[ForgeSettings], Mapping[int, str]]


class ControllerDaemon:
    """A controller and its loop. `run` blocks; `stop` and `wake` may be called from anywhere."""

    def __init__(self, parts: ControllerParts) -> None:
        """Nothing is read or written yet."""
        self._loop = Loop(self._step, name="controller", poll=parts.poll, watched=parts.watched, timers=parts.timers)
        self.wake = self._loop.wake
        self.stop = self._loop.stop
        interval, burst = bucket.controller_pace(parts.reach)
        trust = Trusting(parts.objects)
        self._pulse = StorePulse(
            controller=secrets.token_hex(6), own=parts.store, open_store=parts.open_store, pause=lambda: trust.problem
        )
        self._ledger = Telling(parts.ledger)
        self._reporter = parts.reporter or NoReporter()
        cache, archive = StoreCache(open_store=self._pulse.opened), None
        if parts.open_archive:
            archive = Archiving(open_archive=parts.open_archive, jitter=random.random, told=self._told)
            cache.archived = archive.answer
        self._triggers = self._triggering(parts, parts.code) if parts.code and not parts.only else None
        self.controller = Controller(
            ledger=self._ledger,
            pulse=self._pulse,
            cache=cache,
            trust=trust,
            archive=archive or NoArchive(),
            reporter=self._reporter,
            triggers=self._triggers or NoTriggers(),
            longest=parts.longest,
            store=parts.store,
            entropy=_entropy,
            jitter=random.random,
            bucket=bucket.Bucket.full(interval=interval, burst=burst, now=time.monotonic()),
            only=parts.only,
            personal=parts.personal,
        )

    def tell(self, told: Callable[[], None]) -> None:
        """Have this called whenever something was pushed: by a runner of this process, which then needn't poll."""
        self._ledger.told = told

    def show(self, changed: Callable[[], None]) -> None:
        """Have this called whenever the state remote has changed, by whomever: for those who wait for that."""
        self._ledger.changed = changed

    def run(self) -> None:
        """Until stopped."""
        try:
            self._loop.run()
        finally:
            self._end()

    def wake_code(self) -> None:
        """The code may have changed."""
        if self._triggers:
            self._triggers.wake()
        self.wake()

    def retry(self) -> None:
        """Wait no longer for what has failed."""
        self.controller.retry()
        if self._triggers:
            self._triggers.retry()
        self.wake()

    def progress(self) -> Progress:
        """What it has done so far."""
        done = self.controller
        polled = done.polled.wall if done.polled else None
        return Progress(
            polled_at=polled,
            failure=done.failure,
            turns=done.turns,
            pushes=done.pushes,
            failures=done.failures,
            runs=done.runs,
        )

    def _triggering(self, parts: ControllerParts, code: CodeParts) -> Triggering:
        return Triggering(
            open_code=code.open,
            tagged=code.tagged,
            bases=PullBases(ask=code.bases, told=self.wake_code),
            poll=code.poll,
            watched=code.watched,
            jitter=random.random,
            entropy=_entropy,
            told=self.wake,
            longest=parts.longest,
        )

    def _told(self) -> None:
        self._ledger.told()
        self.wake()

    def _step(self) -> float | None:
        try:
            return self.controller.step(moment())
        except Exception as error:
            LOG.exception("a turn failed by a mistake of ours; it is tried again")
            return self.controller.crashed(moment(), error)

    def _end(self) -> None:
        self._reporter.stop()
        try:
            self._pulse.end()
        except DstackError as error:
            LOG.warning("this controller's heartbeat can't be removed: %s", error)


def _entropy() -> str:
    return secrets.token_hex(NONCE_BYTES)


def moment() -> Moment:
    """Now, by this machine's clocks."""
    return Moment(wall=datetime.now(UTC), ticks=time.monotonic())
