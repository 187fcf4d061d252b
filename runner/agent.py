"""The runner: reads what is assigned to it, sees to it that it is done, and reports. One thread decides; others work.

`step` may be called at any time, also by hand; it does what is due and says when it wants to be called again.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import Empty, SimpleQueue

from dstack.ledger.ledger import Ledger
from dstack.model.errors import Failed, Invalid
from dstack.model.pool import Phase
from dstack.model.world import Moment
from runner import facts, reports
from runner.correspondence import Correspondence
from runner.duty import Duty, assigned, next_at, react
from runner.exchange import Exchange, Exchanged, Wish
from runner.heartbeat import Heart, Vitals
from runner.held import Held
from runner.journal import Journal
from runner.lanes import Lane
from runner.leaving import Leaving, Way, announced, asked, dropped, is_over, recalled
from runner.lookout import Lookout
from runner.mishaps import Fact
from runner.profile import Profile
from runner.registering import Step
from runner.reports import Report
from runner.tools import Tools
from runner.works import Works

LOG = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0


class Agent:
    """A runner at work. `done`: it has ended; `failure` then says why, where it wasn't asked to."""

    def __init__(self, profile: Profile, ledger: Ledger, journal: Journal, tools: Tools) -> None:
        """Takes up what the journal holds. Nothing else begins before the first step."""
        self.done = False
        self.failure = ""
        self._profile, self._journal, self._tools = profile, journal, tools
        one, now = profile.registration, tools.clock()
        self._inbox: SimpleQueue[Callable[[Moment], None]] = SimpleQueue()
        self._bell = threading.Event()
        self.works = Works(tools, self._post)
        self._exchange = Exchange(ledger, one, tools.open_store, tools.judge)
        self._mail = Correspondence(profile, now)
        self.heart = Heart(
            (one.runner, one.instance, one.start), Vitals(free=one.capacity), tools.open_store, tools.clock
        )
        self.heart.on_news = self.poke
        self._leaving: Leaving | None = None
        self.lookout = Lookout(self.works, tools.space, keep=profile.keep_free)
        held = {one.key: self.works.adopt(one, now) for one in journal.load(now)}
        self._duty = Duty(capacity=one.capacity, held=held, taking=False)

    @property
    def held(self) -> Mapping[str, Held]:
        """The attempts in hand."""
        return self._duty.held

    def wake(self) -> None:
        """Something may have changed on the remote: poll soon. From any thread."""
        self._mail.poll_wanted = True
        self._bell.set()

    def poke(self) -> None:
        """Something has changed here: step soon. From any thread; executors are made with this."""
        self._bell.set()

    def shutdown(self, *, stop_attempts: bool) -> None:
        """End soon: with the attempts in hand (they are told and reported as interrupted), or leaving them running.

        What is left running is taken up by the next start. May be called again, to wait no longer.
        """
        way = Way.STOP if stop_attempts else Way.LEAVE
        self._inbox.put(lambda now: self._leave(way, now))
        self._bell.set()

    def drain(self) -> None:
        """Finish what has begun, give back what hasn't, then end. Without effect where it ends already."""
        self._inbox.put(lambda now: self._leave(Way.DRAIN, now))
        self._bell.set()

    def undrain(self) -> None:
        """Take jobs again, if it isn't too late."""
        self._inbox.put(lambda _now: self._stay())
        self._bell.set()

    @property
    def drained(self) -> bool:
        """Whether it has ended so."""
        return self.done and self._leaving is not None and self._leaving.way is Way.DRAIN

    def run(self) -> None:
        """Step until done, with threads for heartbeat and logs."""
        self.heart.start()
        self.works.logs.start()
        try:
            while not self.done:
                self._bell.clear()
                self._bell.wait(self._guarded_step())
        finally:
            self.close()

    def step(self, now: Moment) -> float:
        """Do what is due; seconds until there may be more."""
        while (news := self._next_news()) is not None:
            news(now)
        self._look_for_exits(now)
        self.lookout.look(self._duty.held, now.ticks)
        self._decide(now)
        self.works.along.look(self._duty.held, now.ticks)
        self._correspond(now)
        self._show()
        before = self._leaving
        self._end(now)
        return self._pause(now) if self._leaving is before else 0.0

    def close(self) -> None:
        """Let go of everything. Attempts that run go on."""
        self.heart.stop()
        self.works.close()
        try:
            self._journal.save_all(self._duty.held)
            self._journal.close()
        except OSError as error:
            LOG.error("the runner's journal could not be written: %s", error)  # noqa: TRY400 (the disk failed)

    def _guarded_step(self) -> float:
        try:
            return self.step(self._tools.clock())
        except Exception:
            LOG.exception("a turn of the runner failed; it is tried again")
            return 1.0

    def _next_news(self) -> Callable[[Moment], None] | None:
        try:
            return self._inbox.get_nowait()
        except Empty:
            return None

    def _post(self, key: str, fact: Fact) -> None:
        self._inbox.put(lambda now: self._learn(key, fact, now))
        self._bell.set()

    def _learn(self, key: str, fact: Fact, now: Moment) -> None:
        held = self._duty.held.get(key)
        if held is not None:
            self._duty = self._duty.put(fact(held, now))

    def _look_for_exits(self, now: Moment) -> None:
        for held in tuple(self._duty.held.values()):
            if held.phase is Phase.RUNNING and (exit_ := self.works.exit_of(held)) is not None:
                self._duty = self._duty.put(facts.exited(held, exit_, now))

    def _why_idle(self) -> str:
        """Why nothing is begun, and what waits may be taken back."""
        draining = self._leaving is not None and self._leaving.way is Way.DRAIN
        return "it is draining" if draining else self._paused

    @property
    def _paused(self) -> str:
        """Why nothing can be begun on this machine, though it goes on with what has begun."""
        return self.lookout.pause or self._tools.judge.pause

    def _decide(self, now: Moment) -> None:
        taking = self._mail.registered and self._leaving is None and not self._paused
        paused = frozenset(self.lookout.pauses)
        self._duty = replace(self._duty, taking=taking, paused=paused, found=self.works.leftovers.found)
        self._duty, actions = react(self._duty, now)
        try:
            self._journal.save(self._duty.held, now.ticks)
        except OSError as error:
            LOG.error("the runner's journal could not be written: %s", error)  # noqa: TRY400 (the disk failed)
        for action in actions:
            self.works.do(action)

    def _correspond(self, now: Moment) -> None:
        self._mail.want(store=self.heart.beating_in, state=announced(self._leaving, self._duty), now=now)
        wish = self._mail.wish(self._pending(), now)
        if wish is not None:
            self._tools.lanes.run(Lane.REMOTE, lambda: self._converse(wish))

    def _converse(self, wish: Wish) -> None:
        """In the lane of the remote, which alone uses the ledger."""
        result = self._exchange(wish)
        self._inbox.put(lambda now: self._take(result, now))
        self._bell.set()

    def _take(self, result: Exchanged, now: Moment) -> None:
        before = self._mail.seen
        self._mail.take(result, now)
        for report in result.written:
            self._learn(report.key, _known(report), now)
        if result.seen is not None and (result.seen is not before or result.written):
            self._duty = assigned(self._duty, result.given, self._profile.rules, whole=result.whole)
        if self._mail.registered and result.whole:
            self.lookout.tidy(self._duty.held, now.ticks)

    def _pending(self) -> tuple[Report, ...]:
        return reports.pending(self._duty) if self._mail.registered else ()

    def _show(self) -> None:
        assignments = self._mail.seen.assignments.get(self._profile.registration.runner) if self._mail.seen else None
        self.heart.show(
            Vitals(
                free=self._duty.free,
                store=self._store(),
                lease=self._mail.settings.lease,
                attempts={held.key: held.phase for held in self._duty.held.values()},
                assignment=assignments.oid if assignments else None,
                polls=self._mail.polls,
                retry_after=self._mail.retry_after,
                pause=self._why_idle(),
                pauses=self.lookout.pauses,
                unlimited=self.works.unlimited,
                transfers=self.works.transfers.shown(self._duty.held),
            )
        )

    @property
    def repository(self) -> str:
        """The id of the dstack repository it works for."""
        return self._profile.registration.repository

    @property
    def controller_url(self) -> str | None:
        """Where a controller tells of changes, by the settings as they were read last. From any thread."""
        return self._mail.settings.controller_url

    def _store(self) -> str | None:
        """Where to beat: nowhere before the settings were read, nor while it is not known whose name it is."""
        judged = self._mail.registered or self._mail.standing.step is Step.WRITE
        if self._mail.seen is None or not judged:
            return None
        return self._mail.settings.store_url or self._profile.store

    def _stay(self) -> None:
        before, self._leaving = self._leaving, recalled(self._leaving)
        if before is not self._leaving:
            LOG.info("jobs are taken again")

    def _leave(self, way: Way, now: Moment) -> None:
        self._leaving = asked(self._leaving, way, now.ticks)
        if way is Way.STOP:
            self._duty = replace(self._duty, interrupted=True)

    def _end(self, now: Moment) -> None:
        """Conclude that it is over, if it is."""
        leaving, standing = self._leaving, self._mail.standing
        if leaving is None or (leaving.way is Way.DRAIN and standing.step is Step.STOP):
            self._give_up(now)
        elif leaving.goodbye is not None:
            # What is on its way may be the registration: it must not come when nobody is here to take it back.
            known = self._mail.registered or self._mail.busy
            self.done = is_over(leaving, self._duty, standing, now.ticks, registered=known)
        elif leaving.is_ready(self._duty, now.ticks):
            self._leaving = replace(leaving, goodbye=now.ticks)

    def _give_up(self, now: Moment) -> None:
        """End where the name is another's, or nothing can be written where the heart should beat."""
        refusal = self.heart.refusal
        if self._mail.standing.step is Step.STOP:
            self.failure = self._mail.standing.why
            self.heart.stop()
            if self._mail.standing.ours:
                self._duty = dropped(self._duty)
            self._leave(Way.DROP if self._mail.standing.ours else Way.LEAVE, now)
        elif isinstance(refusal, Failed | Invalid) and not self._mail.registered:
            self.failure = str(refusal)
            self._leave(Way.LEAVE, now)

    def _pause(self, now: Moment) -> float:
        if self.done or not self._inbox.empty():
            return 0.0
        pending = self._pending()
        leaving = self._leaving.deadline() if self._leaving else None
        own = (self._journal.due_at, leaving, now.ticks + LONGEST_PAUSE)
        moments = [next_at(self._duty), self.works.along.next_at, self._mail.next_at(pending, now), *own]
        return max(0.0, min(moment for moment in moments if moment is not None) - now.ticks)


def _known(report: Report) -> Fact:
    """The remote has it."""
    if report.is_end:
        return lambda held, _now: replace(held, ended_known=True)
    return lambda held, _now: replace(held, started_known=True)
