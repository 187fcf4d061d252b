"""The budget of pushes on a throttling forge (DESIGN section 9): exactly, with a fake clock and real daemons."""

from pathlib import Path

import pytest

from dstack.model.status import Status
from tests.forge import Forge

WARM_UP = 90.0
ONE = b"workflows: [{name: a, commands: x}]"
HUNDRED = f"workflows: [{{name: a, commands: x, matrix: {{n: {list(range(100))}}}}}]".encode()


def forge(folder: Path, *, runners: int, seed: int, longest: float = 5.0) -> Forge:
    """A pool that is at rest, its buckets full."""
    made = Forge(folder, runners=runners, seed=seed, longest=longest)
    made.let_pass(WARM_UP)
    assert not made.pushes
    return made


@pytest.mark.parametrize("seed", range(3))
def test_a_single_job_takes_at_most_four_pushes(tmp_path: Path, seed: int) -> None:
    pool = forge(tmp_path, runners=1, seed=seed, longest=40.0)
    pool.submit(ONE)
    pool.seconds_to_the_end(120.0)
    assert pool.view().state.finished
    pool.let_pass(60.0)
    assert pool.pushes == {"user": 1, "controller": 2, "runner-0": 1}


@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_short_jobs_take_at_most_a_minute_and_forty_pushes(tmp_path: Path, seed: int) -> None:
    pool = forge(tmp_path, runners=5, seed=seed)
    pool.submit(HUNDRED)
    seconds = pool.seconds_to_the_end(60.0)
    view = pool.view()
    assert view.plan
    assert [view.state.job(one.id).outcome for one in view.plan.jobs] == [Status.DONE] * 100
    assert seconds <= 60.0
    pool.let_pass(30.0)
    assert pool.pushes.total() <= 40, pool.pushes
