"""The runner's decision core: each of its rules, and that every interleaving of what can happen comes to an end."""

from dataclasses import replace
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.events import Ended, Started
from dstack.model.job import Job, Reason, Resources
from dstack.model.pool import Capacity, Phase
from dstack.model.runspec import Desired
from dstack.model.status import Status
from runner import facts
from runner.duty import Action, Cancel, Finish, Prepare, Send, next_at
from runner.executor import Exit, Signal
from runner.facts import PATIENCE
from runner.held import Failure, Kept
from runner.reports import pending
from tests.duties import Fact, Hands, a_job, given_job, wanting

AWAY = Failure(reason=Reason.UPLOAD_FAILED, message="the store is away")
KEPT = Kept(log_size=5, manifest="m" * 64, artifacts_size=7, warnings=("none of it",))


def ended_with(exit_: Exit) -> Fact:
    return lambda held, now: facts.exited(held, exit_, now)


def code(number: int) -> Fact:
    return ended_with(Exit(exit_code=number))


def saved(kept: Kept = KEPT) -> Fact:
    return lambda held, now: facts.kept(held, kept, now)


def broken(failure: Failure) -> Fact:
    return lambda held, now: facts.not_prepared(held, failure, now)


def held_up(held_failure: Failure = AWAY) -> Fact:
    return lambda held, now: facts.held_up(held, held_failure, now)


def running(job: Job | None = None) -> Hands:
    hands = Hands()
    hands.assign(given_job(job))
    hands.learn(facts.prepared)
    return hands


def words(actions: list[Action]) -> list[str]:
    return [f"send {one.signal}" if isinstance(one, Send) else type(one).__name__.lower() for one in actions]


def claim_of(hands: Hands) -> Ended:
    ended = hands.one.ended
    assert ended is not None
    return ended


def outcome(hands: Hands) -> tuple[str, str]:
    return claim_of(hands).status.value, claim_of(hands).reason.value


def test_from_assignment_to_claim() -> None:
    hands = Hands()
    assert words(hands.assign(given_job())) == ["prepare"]
    assert hands.assign(given_job()) == []
    assert hands.learn(facts.prepared) == []
    (finish,) = hands.learn(code(0))
    assert isinstance(finish, Finish)
    assert finish.artifacts
    assert words(hands.learn(saved())) == ["discard"]
    ended = claim_of(hands)
    assert (ended.status, ended.reason, ended.exit_code) == (Status.DONE, Reason.OK, 0)
    assert (ended.log_size, ended.manifest, ended.artifacts_size, ended.warnings) == (5, "m" * 64, 7, ("none of it",))
    assert None not in (ended.times.preparing, ended.times.running, ended.times.uploading, ended.times.ended)
    hands.learn(lambda held, _now: facts.discarded(held))
    assert [type(one.event) for one in pending(hands.duty)] == [Started, Ended]
    hands.assign()
    assert hands.duty.held == {}


@pytest.mark.parametrize(
    ("exit_", "expected"),
    [
        (Exit(exit_code=0), ("DONE", "ok")),
        (Exit(exit_code=3), ("FAILED", "exit")),
        (Exit(exit_code=139, signal=11), ("FAILED", "exit")),
        (Exit(exit_code=137, signal=9, oom=True), ("FAILED", "oom")),
        (Exit(exit_code=0, oom=True), ("DONE", "ok")),
        (Exit(exit_code=None, reason=Reason.LOST), ("FAILED", "lost")),
        (Exit(exit_code=1, reason=Reason.DISK_FULL), ("FAILED", "disk-full")),
    ],
)
def test_an_end_of_its_own(exit_: Exit, expected: tuple[str, str]) -> None:
    hands = running()
    hands.learn(ended_with(exit_))
    hands.learn(saved())
    assert outcome(hands) == expected
    assert claim_of(hands).manifest == "m" * 64, "a failed job's artifacts are kept too"


def test_stop_is_term_then_kill_and_keeps_artifacts() -> None:
    hands = running()
    stop = wanting(given_job(), Desired.STOP)
    assert words(hands.assign(stop)) == ["send TERM"]
    assert hands.assign(stop) == []
    assert next_at(hands.duty) == 10.0
    assert hands.turn(9.9) == []
    assert words(hands.turn(0.1)) == ["send KILL"]
    assert hands.turn(1.0) == []
    assert words(hands.turn(4.0)) == ["send KILL"], "again, until it is dead"
    assert words(hands.learn(code(143))) == ["finish"]
    hands.learn(saved())
    assert outcome(hands) == ("STOPPED", "stopped")
    assert claim_of(hands).manifest == "m" * 64


def test_stop_that_comes_after_the_end_changes_nothing() -> None:
    hands = running()
    hands.learn(code(0))
    assert hands.assign(wanting(given_job(), Desired.STOP)) == []
    hands.learn(saved())
    assert outcome(hands) == ("DONE", "ok")


def test_stop_turned_into_abort_kills_at_once() -> None:
    hands = running()
    assert words(hands.assign(wanting(given_job(), Desired.STOP))) == ["send TERM"]
    assert words(hands.assign(wanting(given_job(), Desired.ABORT))) == ["send KILL"]
    (finish,) = hands.learn(code(137))
    assert isinstance(finish, Finish)
    assert not finish.artifacts
    hands.learn(saved(Kept(log_size=5)))
    assert outcome(hands) == ("ABORTED", "aborted")


def test_abort_while_uploading_drops_the_artifacts() -> None:
    hands = running()
    hands.learn(code(0))
    assert words(hands.assign(wanting(given_job(), Desired.ABORT))) == ["cancel"]
    (finish,) = hands.learn(facts.gave_up)
    assert isinstance(finish, Finish)
    assert not finish.artifacts
    assert hands.turn() == [], "the log alone isn't cancelled"
    hands.learn(saved(Kept(log_size=5)))
    assert outcome(hands) == ("ABORTED", "aborted")


def test_abort_that_the_upload_outran_drops_them_all_the_same() -> None:
    hands = running()
    hands.learn(code(0))
    hands.assign(wanting(given_job(), Desired.ABORT))
    hands.learn(saved())
    assert outcome(hands) == ("ABORTED", "aborted")
    assert claim_of(hands).manifest is None


@pytest.mark.parametrize(("desired", "expected"), [(Desired.STOP, "STOPPED"), (Desired.ABORT, "ABORTED")])
def test_ended_at_once_while_waiting(desired: Desired, expected: str) -> None:
    hands = Hands()
    assert words(hands.assign(wanting(given_job(), desired))) == ["discard"]
    assert claim_of(hands).status == expected
    assert [type(one.event) for one in pending(hands.duty)] == [Ended], "what never ran has not started"


@pytest.mark.parametrize(("desired", "expected"), [(Desired.STOP, "STOPPED"), (Desired.ABORT, "ABORTED")])
def test_ended_soon_while_preparing(desired: Desired, expected: str) -> None:
    hands = Hands()
    hands.assign(given_job())
    assert words(hands.assign(wanting(given_job(), desired))) == ["cancel"]
    assert words(hands.learn(facts.gave_up)) == ["finish"]
    hands.learn(saved(Kept()))
    assert claim_of(hands).status == expected


def test_commands_that_outran_a_stop_are_ended() -> None:
    hands = Hands()
    hands.assign(given_job())
    hands.assign(wanting(given_job(), Desired.STOP))
    assert words(hands.learn(facts.prepared)) == ["send TERM"]


def test_timeout_counts_from_the_start_of_the_commands() -> None:
    hands = Hands()
    hands.assign(given_job(a_job(timeout=60.0)))
    hands.turn(1000.0)
    hands.learn(facts.prepared)
    assert next_at(hands.duty) == 1060.0
    assert hands.turn(59.0) == []
    assert words(hands.turn(1.0)) == ["send TERM"]
    assert words(hands.turn(10.0)) == ["send KILL"]
    hands.learn(code(137))
    hands.learn(saved())
    assert outcome(hands) == ("FAILED", "timeout")
    assert "1m" in claim_of(hands).message


def test_what_is_gone_is_killed_forgotten_and_never_told() -> None:
    hands = running()
    assert words(hands.assign()) == ["send KILL"]
    assert pending(hands.duty) == ()
    assert words(hands.turn(5.0)) == ["send KILL"]
    assert words(hands.learn(code(137))) == ["discard"]
    hands.learn(lambda held, _now: facts.discarded(held))
    assert hands.duty.held == {}


def test_what_is_gone_while_its_work_is_under_way_is_cancelled() -> None:
    for begin in ((), (facts.prepared, code(0))):
        hands = Hands()
        hands.assign(given_job())
        for fact in begin:
            hands.learn(fact)
        assert words(hands.assign()) == ["cancel"]
        assert words(hands.learn(facts.gave_up)) == ["discard"]
        hands.learn(lambda held, _now: facts.discarded(held))
        assert hands.duty.held == {}


def test_an_assignment_that_could_not_be_read_whole_takes_nothing_away() -> None:
    hands = running()
    assert hands.assign(whole=False) == []
    assert not hands.one.gone


def test_another_nonce_is_another_attempt() -> None:
    hands = running()
    other = given_job()
    other = replace(other, attempt=msgspec.structs.replace(other.attempt, nonce="another"))
    assert words(hands.assign(other)) == ["send KILL"]


def test_attempts_of_another_instance_are_left_to_the_controller() -> None:
    hands = Hands()
    assert hands.assign(given_job(instance="them")) == []
    assert hands.duty.held == {}


@pytest.mark.parametrize(
    ("job", "word"),
    [
        (a_job(image="busybox"), "docker"),
        (a_job(resources=Resources(cpu=3.0)), "cpu"),
        (a_job(resources=Resources(memory=2**34)), "memory"),
    ],
)
def test_what_it_can_never_do_is_rejected_with_a_log(job: Job, word: str) -> None:
    hands = Hands()
    assert words(hands.assign(given_job(job))) == ["finish"]
    hands.learn(saved(Kept(log_size=9)))
    assert outcome(hands) == ("FAILED", "rejected")
    assert word in claim_of(hands).message


def test_a_job_that_cannot_be_read_is_refused() -> None:
    hands = Hands()
    failure = Failure(reason=Reason.INVALID, message="it is no JSON")
    assert words(hands.assign(replace(given_job(), job=failure))) == ["finish"]
    hands.learn(saved(Kept()))
    assert outcome(hands) == ("FAILED", "invalid")


def test_a_backlog_begins_in_order_as_room_appears() -> None:
    jobs = [given_job(a_job(name), order=order) for name, order in (("c", "3"), ("a", "1"), ("d", "4"), ("b", "2"))]
    hands = Hands()
    begun = [one.held.job.workflow for one in hands.assign(*jobs)]
    assert begun == ["a", "b"]
    key = jobs[1].attempt.key
    hands.learn(facts.prepared, key)
    actions = hands.learn(code(0), key)
    assert [(type(one), one.held.job.workflow) for one in actions] == [(Finish, "a"), (Prepare, "c")]
    assert hands.duty.free == Capacity(cpu=0.0, memory=2**33)


def test_a_large_one_keeps_its_turn() -> None:
    small, large, late = a_job("small"), a_job("large", resources=Resources(cpu=2.0)), a_job("late")
    given_ = [given_job(job, order=str(number)) for number, job in enumerate((small, large, late))]
    hands = Hands()
    assert [one.held.job.workflow for one in hands.assign(*given_)] == ["small"]
    hands.learn(facts.prepared, given_[0].attempt.key)
    actions = hands.learn(code(0), given_[0].attempt.key)
    assert [one.held.job.workflow for one in actions] == ["small", "large"]


def test_work_that_is_held_up_is_tried_again_ever_more_rarely_and_not_for_ever() -> None:
    hands = running()
    hands.learn(code(0))
    tries = 0
    while hands.one.ended is None:
        hands.learn(held_up())
        moment = next_at(hands.duty)
        if moment is not None:
            assert hands.turn(moment - hands.now - 0.01) == []
            assert words(hands.turn(0.02)) == ["finish"]
        tries += 1
    assert PATIENCE <= hands.now <= PATIENCE + 60.0
    assert 60 < tries < 200
    assert outcome(hands) == ("FAILED", "upload-failed")


def test_checkout_that_is_held_up_may_be_stopped_meanwhile() -> None:
    hands = Hands()
    hands.assign(given_job())
    hands.learn(held_up(Failure(reason=Reason.CHECKOUT, message="away")))
    assert words(hands.assign(wanting(given_job(), Desired.STOP))) == ["finish"]
    hands.learn(saved(Kept()))
    assert outcome(hands) == ("STOPPED", "stopped")


def test_nobody_waits_an_hour_for_the_log_of_what_was_aborted() -> None:
    hands = running()
    hands.assign(wanting(given_job(), Desired.ABORT))
    hands.learn(code(137))
    while hands.one.ended is None:
        hands.learn(held_up())
        hands.turn((next_at(hands.duty) or hands.now) - hands.now)
    assert hands.now < 130.0
    assert outcome(hands) == ("ABORTED", "aborted")


def test_a_failed_upload_fails_what_was_done_but_keeps_the_reason_of_what_failed() -> None:
    for number, expected in ((0, ("FAILED", "upload-failed")), (3, ("FAILED", "exit"))):
        hands = running()
        hands.learn(code(number))
        hands.learn(saved(Kept(failure=AWAY)))
        assert outcome(hands) == expected
        assert "the store is away" in claim_of(hands).message


def test_what_cannot_be_removed_is_tried_for_ever_and_nothing_else_waits_for_it() -> None:
    hands = running()
    hands.learn(code(0))
    hands.learn(saved())
    ended = claim_of(hands)
    for _ in range(200):
        assert hands.learn(held_up()) == []
        assert words(hands.turn((next_at(hands.duty) or 0.0) - hands.now)) == ["discard"]
    assert hands.now > PATIENCE
    assert claim_of(hands) == ended
    hands.learn(lambda held, _now: facts.discarded(held))
    hands.assign()
    assert hands.duty.held == {}


def test_an_interrupted_runner_ends_everything_and_says_so() -> None:
    hands = running()
    hands.assign(given_job(), given_job(a_job("other")), given_job(a_job("waits", resources=Resources(cpu=2.0))))
    hands.duty = replace(hands.duty, interrupted=True)
    assert sorted(words(hands.turn())) == ["cancel", "discard", "send TERM"]
    hands.learn(code(143), given_job().attempt.key)
    hands.learn(saved(), given_job().attempt.key)
    hands.learn(facts.gave_up, given_job(a_job("other")).attempt.key)
    hands.learn(saved(Kept()), given_job(a_job("other")).attempt.key)
    claims = {(one.ended.status, one.ended.reason) for one in hands.duty.held.values() if one.ended}
    assert claims == {(Status.FAILED, Reason.INTERRUPTED)}
    assert len(hands.duty.held) == 3


def test_what_was_reported_before_its_memory_was_lost_is_not_run_again() -> None:
    hands = running()
    hands.learn(code(0))
    hands.learn(saved())
    again = Hands()
    actions = again.assign(replace(given_job(), started=True, ended=claim_of(hands)))
    assert words(actions) == ["discard"]
    assert pending(again.duty) == ()


class World:
    """Answers for everything duty asks, as chance has it: commands that ignore TERM, work that is held up or fails."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.hands = Hands()
        self.given = [given_job(a_job(name, timeout=self.random.choice([None, 5.0])), order=name) for name in "abc"]
        self.todo: list[Action] = []
        self.assigned = {one.attempt.key: one for one in self.given}
        self.told_after_gone: list[str] = []
        self.gone: set[str] = set()
        self.claims: dict[str, Ended] = {}

    def do(self, actions: list[Action]) -> None:
        self.todo += [one for one in actions if not isinstance(one, Cancel)]
        self.told_after_gone += [one.key for one in pending(self.hands.duty) if one.key in self.gone]
        for key, held in self.hands.duty.held.items():
            if held.ended:
                assert self.claims.setdefault(key, held.ended) == held.ended, "a claim never changes"
            elif key in self.claims:
                assert key in self.gone, "nothing in hand is done twice"

    def chance(self, *, calm: bool) -> None:
        """One thing happens."""
        if not calm and self.random.random() < 0.3:
            self._wish()
        elif self.todo and self.random.random() < 0.7:
            self._answer(self.todo.pop(self.random.randrange(len(self.todo))))
        else:
            self._time_or_exit(calm=calm)

    def _wish(self) -> None:
        key = self.random.choice([one.attempt.key for one in self.given])
        if self.random.random() < 0.3:
            if self.assigned.pop(key, None):
                self.gone.add(key)
        elif key in self.assigned:
            self.assigned[key] = wanting(self.assigned[key], self.random.choice([Desired.STOP, Desired.ABORT]))
        self.do(self.hands.assign(*self.assigned.values()))

    def _answer(self, action: Action) -> None:
        key = action.held.key
        if isinstance(action, Send):
            self._signalled(action)
            return
        assert key in self.hands.duty.held, "work is under way for what is in hand only"
        match action:
            case Prepare():
                choices: list[Fact] = [facts.prepared, facts.prepared, held_up(), facts.gave_up, broken(AWAY)]
            case Finish():
                choices = [saved(), saved(), held_up(), facts.gave_up]
            case _:
                choices = [lambda held, _now: facts.discarded(held)]
        self.do(self.hands.learn(self._fit(self.random.choice(choices), action), key))

    def _fit(self, fact: Fact, action: Action) -> Fact:
        """Work gives up only when it was asked to."""
        asked = self.hands.duty.held[action.held.key].cancelled
        if fact is facts.gave_up and not asked:
            return saved() if isinstance(action, Finish) else facts.prepared
        return fact

    def _signalled(self, action: Send) -> None:
        held = self.hands.duty.held.get(action.held.key)
        obeys = action.signal is Signal.KILL or self.random.random() < 0.5
        if obeys and held is not None and held.phase is Phase.RUNNING:
            self.do(self.hands.learn(code(137), held.key))

    def _time_or_exit(self, *, calm: bool) -> None:
        running_ = [held for held in self.hands.duty.held.values() if held.phase is Phase.RUNNING]
        if running_ and self.random.random() < (0.5 if calm else 0.1):
            self.do(self.hands.learn(code(self.random.choice([0, 1])), self.random.choice(running_).key))
        else:
            moment = next_at(self.hands.duty)
            self.do(self.hands.turn(1.0 if moment is None else max(0.0, moment - self.hands.now)))


@given(st.integers(0, 2**32))
def test_every_interleaving_ends(seed: int) -> None:
    world = World(seed)
    world.do(world.hands.assign(*world.assigned.values()))
    for _ in range(world.random.randrange(60)):
        world.chance(calm=False)
    for _ in range(3000):
        if all(held.ended and held.discarded for held in world.hands.duty.held.values()):
            break
        world.chance(calm=True)
    else:
        pytest.fail(f"not all attempts have ended: {world.hands.duty}")
    assert world.told_after_gone == []
    assert set(world.assigned) - world.gone <= set(world.claims)
    for key, ended in world.claims.items():
        desired = world.assigned[key].attempt.desired if key in world.assigned else Desired.RUN
        assert ended.status is not Status.ABORTED or ended.manifest is None
        if desired is Desired.RUN and key in world.assigned:
            assert ended.status in (Status.DONE, Status.FAILED)
    world.do(world.hands.assign())
    assert world.hands.duty.held == {}


def test_an_attempt_that_was_altered_after_it_was_taken_stays_as_it_was_but_can_be_ended() -> None:
    hands = Hands()
    one = given_job()
    hands.assign(one)
    forged = msgspec.structs.replace(one.attempt, store="file:///elsewhere", snapshot="e" * 40, desired=Desired.STOP)
    for job in (Failure(reason=Reason.SIGNATURE, message="altered"), None):
        hands.assign(replace(one, attempt=forged, job=job))
        held = hands.one.attempt
        assert (held.store, held.snapshot) == (one.attempt.store, one.attempt.snapshot)
        assert held.desired is Desired.STOP
        assert hands.one.failure is None


def test_an_attempt_of_which_nobody_can_tell_yet_is_not_taken() -> None:
    hands = Hands()
    hands.assign(replace(given_job(), job=None))
    assert hands.duty.held == {}
