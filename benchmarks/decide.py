"""Measures planning a run of 10,000 jobs and the turn that decides it: `python -m benchmarks.decide`. Medians."""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from dstack.model.decide import decide
from dstack.model.liveness import Watched
from dstack.model.planner import make_plan
from dstack.model.pool import Capacity, Registration
from dstack.model.refs import RunKey
from dstack.model.runspec import Code, RunSpec, Wanted
from dstack.model.states import RunState
from dstack.model.world import Moment, RunnerView, RunView, World

JOBS = 10_000
RUNS = 5
ROOT = "a" * 40
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = Moment(wall=START, ticks=0.0)

WORKFLOWS = f"""
workflows:
  - name: sweep
    commands: ['python train.py $variables_as_args']
    matrix: {{lr: {list(range(JOBS // 100))}, seed: {list(range(100))}}}
""".encode()
VARIABLES = b"variables: {sweep: {model: resnet, epochs: 10, batch-size: 64}}"

SPEC = RunSpec(
    repository="repo",
    run="fast-rabbit-1",
    workflow="sweep",
    code=Code(commit="c" * 40, snapshot="d" * 40),
    submitted_by="ada",
    submitted_at=START,
    nonce="n",
)


def median(act: Callable[[], object]) -> float:
    """Milliseconds, the median of several runs."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        act()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def world() -> World:
    """A new run of many jobs, and eight runners of four cores."""
    registration = Registration(
        repository="repo",
        runner="otter",
        instance="i",
        start="s",
        host="h",
        capacity=Capacity(cpu=4, memory=2**34),
        executors=("process",),
        store="file:///store",
        at=START,
    )
    runners = {}
    for number in range(8):
        name = f"otter-{number}"
        watched = Watched(instance="i", start="s", heartbeat=None, changed=0.0, polled=0.0, proven=True)
        runners[name] = RunnerView(registration=replace(registration, runner=name), watched=watched)
    view = RunView(
        key=RunKey.of("fast-rabbit-1", ROOT),
        root=ROOT,
        spec=SPEC,
        wanted=Wanted(),
        plan=make_plan(ROOT, SPEC, WORKFLOWS, VARIABLES),
        state=RunState(),
    )
    return World(repository="repo", store="file:///store", runs=(view,), runners=runners, entropy="e")


def main() -> None:
    """Print the medians."""
    whole = world()
    plan = median(lambda: make_plan(ROOT, SPEC, WORKFLOWS, VARIABLES))
    turn = median(lambda: decide(whole, NOW))
    print(f"plan {JOBS} jobs              {plan:8.1f} ms")
    print(f"decide their first turn      {turn:8.1f} ms")
    print(f"both                         {plan + turn:8.1f} ms   (at most 1000)")


if __name__ == "__main__":
    main()
