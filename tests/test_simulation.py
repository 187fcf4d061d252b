"""The whole pool, with everything that can go wrong, over hundreds of seeds; and that the laws can be broken at all."""

import os

import pytest

from tests.simulation import Simulation
from tests.simulation_laws import reused

SEEDS = int(os.environ.get("SEEDS", "280"))
BATCH = 20


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
@pytest.mark.timeout(300)
def test_every_run_ends_once_whatever_happens(first: int) -> None:
    problems = {seed: found for seed in range(first, first + BATCH) if (found := Simulation(seed).play())}
    assert problems == {}, "play one again: python -m tests.simulation --seed N --verbose"


def test_a_seed_plays_the_same_each_time() -> None:
    one, other = Simulation(7), Simulation(7)
    assert one.play() == other.play()
    assert (one.steps, one.now, one.starts) == (other.steps, other.now, other.starts)


def test_machines_are_drained_again_and_again_while_jobs_run_and_wait_there() -> None:
    emptied = 0
    for seed in range(30):
        simulation = Simulation(seed)
        for when in range(20, 320, 60):
            simulation.at(when, simulation.drain)
        assert simulation.play() == [], seed
        emptied += simulation.emptied
    assert emptied > 0


def test_runs_are_stopped_and_resumed_again_and_again() -> None:
    resumed = 0
    for seed in range(8):
        simulation = Simulation(seed)
        for when in range(30, 330, 20):
            simulation.at(when, simulation.resume)
        assert simulation.play() == [], seed
        resumed += simulation.resumed
    assert resumed > 8


def test_finished_jobs_stand_in_for_others() -> None:
    """What the laws say of reuse is said of something."""
    played = [Simulation(seed) for seed in range(30)]
    assert [problem for one in played for problem in one.play()] == []
    assert sum(reused(one.remote) for one in played) > 5


def test_without_leases_the_laws_break() -> None:
    """The simulation can fail: two controllers that don't lease their refs decide twice."""
    assert any(Simulation(seed, leased=False).play() for seed in range(40))
