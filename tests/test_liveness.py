"""Who counts as alive, as time passes for one observer."""

from dataclasses import replace

import msgspec
import pytest

from dstack.model.liveness import Sight, Watch, watch
from dstack.model.observation import Assignments
from dstack.model.pool import Attempt, Heartbeat, Registration
from tests.model_values import heartbeat, registration

LEASE = 60.0


def sight(*beats: Heartbeat, who: Registration | None = None, away: bool = False, held: bool = False) -> Sight:
    """One runner, with these heartbeats in the store."""
    who = who or registration()
    attempt = Attempt(
        repository="repo",
        run="r.0",
        root="r",
        snapshot="s",
        job="j",
        attempt=1,
        instance="i",
        nonce="n",
        log="l",
        store="s",
    )
    return Sight(
        registrations={who.runner: who},
        heartbeats={(beat.runner, beat.instance): beat for beat in beats},
        assignments={"otter": Assignments(oid="1", attempts={"j.1": attempt}, jobs={})} if held else {},
        away=frozenset({who.store}) if away else frozenset(),
    )


def after(*sights: tuple[float, Sight]) -> Watch:
    """What is concluded from looking at these moments."""
    state = Watch()
    for now, seen in sights:
        state = watch(state, seen, lease=LEASE, now=now)
    return state


def test_what_is_found_at_the_start_is_neither_proven_nor_lost_for_a_lease() -> None:
    otter = after((0, sight(heartbeat()))).runners["otter"]
    assert not otter.proven
    assert not otter.is_lost(LEASE, 59.9)
    assert otter.is_lost(LEASE, 60.0)


def test_a_change_proves_life_and_starts_the_lease_anew() -> None:
    otter = after((0, sight(heartbeat())), (20, sight(heartbeat(beats=2, polls=2)))).runners["otter"]
    assert otter.proven
    assert otter.lost_at(LEASE) == 80


def test_a_registration_that_appears_before_our_eyes_is_proof() -> None:
    nobody = Sight(registrations={}, heartbeats={}, assignments={})
    assert after((0, nobody), (1, sight())).runners["otter"].proven


def test_a_new_start_before_our_eyes_is_proof() -> None:
    again = msgspec.structs.replace(registration(), start="again")
    assert after((0, sight(heartbeat())), (1, sight(heartbeat(), who=again))).runners["otter"].proven


def test_beats_without_polls_count_for_two_leases_only() -> None:
    looks = [(float(now), sight(heartbeat(beats=now))) for now in range(0, 131, 10)]
    otter = after(*looks).runners["otter"]
    assert otter.lost_at(LEASE) == 120
    patient = msgspec.structs.replace(heartbeat(beats=140), retry_after=300.0)
    otter = after(*looks, (140.0, sight(patient))).runners["otter"]
    assert otter.lost_at(LEASE) == 200


def test_time_without_the_store_does_not_count() -> None:
    looks = [(float(now), sight(away=now > 0)) for now in range(0, 600, 10)]
    otter = after(*looks, (600.0, sight(heartbeat()))).runners["otter"]
    assert not otter.is_lost(LEASE, 600.0)


def test_time_in_which_we_did_not_look_does_not_count() -> None:
    otter = after((0, sight(heartbeat())), (10, sight(heartbeat(beats=2))), (500, sight(heartbeat(beats=2)))).runners[
        "otter"
    ]
    assert otter.lost_at(LEASE) == 560


@pytest.mark.parametrize(("assignment", "missing"), [("1", {"j.1": 10.0}), ("0", {}), (None, {})])
def test_an_attempt_is_missed_where_the_heartbeat_names_its_assignment_commit(
    assignment: str | None, missing: dict[str, float]
) -> None:
    beat = heartbeat(assignment=assignment)
    looks = [(0.0, sight(beat)), (10.0, sight(beat, held=True)), (20.0, sight(beat, held=True))]
    assert after(*looks).runners["otter"].missing == missing
    named = replace(sight(heartbeat(assignment="1", attempts=["j.1"]), held=True))
    assert after(*looks, (25.0, named)).runners["otter"].missing == {}


def test_it_is_given_up_after_two_leases() -> None:
    beat = heartbeat(assignment="1")
    looks = [(float(now), sight(msgspec.structs.replace(beat, beats=now), held=now > 0)) for now in range(0, 140, 10)]
    otter = after(*looks).runners["otter"]
    assert not otter.gave_up("j.1", LEASE, 129.0)
    assert otter.gave_up("j.1", LEASE, 130.0)
