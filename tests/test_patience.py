"""How long is waited after trouble: who was away is soon seen to be back; who asks for patience is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.backoff import Backoff
from dstack.ledger import refusals
from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.job import Reason
from dstack.model.patience import AWAY_SECONDS, FIRST_SECONDS, LONGEST_SECONDS, pause
from runner import facts
from runner.held import Failure, Task
from tests.model_values import moment
from tests.test_runner_duty import code, running

TRIES = st.integers(min_value=1, max_value=100_000)
JITTER = st.floats(min_value=0.0, max_value=1.0)


def of_git(said: str) -> DstackError | None:
    return refusals.explain(said, "https://forge/x", "can't be reached")


@given(TRIES, JITTER)
def test_what_is_away_is_asked_again_within_seconds_however_long_it_was(tries: int, jitter: float) -> None:
    assert FIRST_SECONDS / 2 <= pause(tries, jitter, Unavailable("gone", away=True)) <= AWAY_SECONDS


@given(TRIES, JITTER)
def test_all_else_is_asked_ever_more_rarely(tries: int, jitter: float) -> None:
    for error in (None, Failed("no right"), Unavailable("too many requests")):
        assert pause(tries, jitter, error) <= LONGEST_SECONDS
        assert pause(tries + 8, jitter, error) >= LONGEST_SECONDS / 2


@given(TRIES, JITTER, st.floats(min_value=0.1, max_value=3600.0), st.booleans())
def test_a_wait_that_was_asked_for_is_kept(tries: int, jitter: float, seconds: float, away: bool) -> None:  # noqa: FBT001
    assert pause(tries, jitter, Unavailable("busy", retry_after=seconds, away=away)) >= seconds
    assert (
        Backoff(failures=tries).after_outage(10.0, jitter, Unavailable("x", retry_after=seconds)).until >= 10 + seconds
    )


@pytest.mark.parametrize(
    ("said", "away"),
    [
        ("fatal: unable to access 'x': Failed to connect to host port 443: Connection refused", True),
        ("fatal: unable to access 'x': Could not resolve host: forge", True),
        ("fatal: unable to access 'x': The requested URL returned error: 503", True),
        ("ssh: connect to host forge port 22: Connection timed out", True),
        ("fatal: the remote end hung up unexpectedly", True),
        ("fatal: unable to access 'x': The requested URL returned error: 429", False),
        ("remote: API rate limit exceeded", False),
    ],
)
def test_of_what_git_says_only_connections_and_its_own_trouble_are_away(said: str, away: bool) -> None:  # noqa: FBT001
    error = of_git(said)
    assert isinstance(error, Unavailable)
    assert error.away == away


def test_a_forge_that_forbids_is_not_away() -> None:
    assert isinstance(of_git("fatal: unable to access 'x': The requested URL returned error: 403"), Failed)


def test_a_controller_looks_within_seconds_of_an_outage_and_leaves_a_refusal_alone() -> None:
    away = lasting = Backoff()
    for _ in range(20):
        away = away.after_outage(0.0, 1.0, Unavailable("gone", away=True))
        lasting = lasting.after_outage(0.0, 1.0, Failed("no right"))
    assert (away.until, lasting.until) == (AWAY_SECONDS, LONGEST_SECONDS)


def test_an_upload_that_waits_for_a_store_goes_on_within_seconds() -> None:
    hands = running()
    hands.learn(code(0))
    failure = Failure(reason=Reason.UPLOAD_FAILED, message="the store is away")
    held = hands.one
    assert held.task in (Task.SAVE, Task.CLOSE)
    for number in range(1, 30):
        now = moment(1000.0 + number)
        held = facts.held_up(held, failure, now, Unavailable("gone", away=True))
        assert held.trouble is not None
        assert now.ticks < held.trouble.again <= now.ticks + AWAY_SECONDS
    asked = facts.held_up(held, failure, moment(2000.0), Unavailable("busy", retry_after=300.0))
    assert asked.trouble is not None
    assert asked.trouble.again >= 2300.0
