"""GPUs and labels: which runner a job goes to, which GPUs it gets, and that none is given twice."""

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.decide import decide
from dstack.model.events import Assigned, Revoked
from dstack.model.gpus import Gpu, lacking, pick, suits
from dstack.model.job import Gpus, Job, Reason, Resources, from_bytes, to_bytes
from dstack.model.placing import Candidate, Room, place
from dstack.model.plan import PlannedJob
from dstack.model.pool import Capacity, Phase, RunnerState
from dstack.model.retries import retries_left
from dstack.model.states import RunState, fold_job
from dstack.model.world import RunnerView
from runner.duty import Duty, react
from runner.executor import Exit
from runner.facts import discarded, exited, kept, prepared, taken
from runner.held import Kept
from tests.duties import RULES, a_job, at, given_job
from tests.model_values import assigned, heartbeat, moment, planned, registration, run_view, runner_view, world
from tests.test_decide import assignments, events_on

GB = 10**9
V100, T4 = "Tesla V100-SXM2-16GB", "Tesla T4"


def gpus(*names: str, memory: int = 16 * GB) -> tuple[Gpu, ...]:
    return tuple(Gpu(index=index, name=name, memory=memory) for index, name in enumerate(names))


@pytest.mark.parametrize(
    ("name", "wanted", "is_one"),
    [
        (V100, "V100", "yes"),
        (V100, "tesla v100", "yes"),
        (V100, "v100-sxm2-16gb", "yes"),
        ("NVIDIA GeForce RTX 3090", "RTX3090", "yes"),
        ("NVIDIA GeForce RTX 3090", "rtx 3090", "yes"),
        ("NVIDIA A100-SXM4-40GB", "A10", "no"),
        ("NVIDIA A10G", "A10", "no"),
        (V100, "", "yes"),
    ],
)
def test_what_a_gpu_is_called(name: str, wanted: str, is_one: str) -> None:
    assert suits(Gpu(index=0, name=name, memory=GB), Gpus(count=1, name=wanted)) is (is_one == "yes")


def test_the_smallest_that_suit_are_given() -> None:
    small, large = Gpu(index=1, name=T4, memory=8 * GB), Gpu(index=0, name=T4, memory=16 * GB)
    assert pick([large, small], Gpus(count=1)) == (small,)
    assert pick([large, small], Gpus(count=1, memory=9 * GB)) == (large,)
    assert pick([large, small], Gpus(count=2, memory=9 * GB)) is None
    assert pick([], None) == ()


@pytest.mark.parametrize(
    ("total", "wanted", "words"),
    [
        ((), Gpus(count=1), "has no GPU"),
        (gpus(T4), Gpus(count=2), "has 1 GPU in all"),
        (gpus(T4, V100), Gpus(count=2, name="V100", memory=GB), "has 1 of 2 GPUs (V100, 1GB each)"),
        (gpus(T4, V100), Gpus(count=1, name="V100"), ""),
    ],
)
def test_why_a_machine_can_never_give_them(total: tuple[Gpu, ...], wanted: Gpus, words: str) -> None:
    assert lacking(total, wanted) == words


def test_a_job_without_gpus_or_labels_is_the_same_object_as_ever() -> None:
    plain = Job(root="a" * 40, workflow="train", commands=("x",), resources=Resources(cpu=2.0))
    text = b'{"commands":["x"],"resources":{"cpu":2.0},"root":"%s","workflow":"train"}'
    assert to_bytes(plain) == text % (b"a" * 40)
    asking = msgspec.structs.replace(plain, labels=("big",), resources=Resources(gpu=Gpus(count=1, name="T4")))
    assert from_bytes(to_bytes(asking)) == asking


def machine(name: str, *names: str, labels: tuple[str, ...] = (), cpu: float = 8.0) -> RunnerView:
    view = runner_view(name, cpu=cpu)
    capacity = Capacity(cpu=cpu, memory=8 * 2**30, gpus=gpus(*names))
    return replace(view, registration=msgspec.structs.replace(view.registration, capacity=capacity, labels=labels))


def where(*jobs: PlannedJob, runners: list[RunnerView]) -> tuple[dict[str, str], dict[str, str]]:
    """The runner that each job goes to, and why others wait, by workflow."""
    decisions = decide(world(run_view(*jobs), runners=runners), moment())
    names = {job.id: job.job.workflow for job in jobs}
    went = {names[one.job]: name for name, held in assignments(decisions).items() for one in held.values()}
    return went, {names[key]: why for key, why in decisions.waiting.items()}


def test_jobs_go_where_their_gpus_and_labels_are() -> None:
    pool = [machine("aa"), machine("bb", T4, labels=("big",)), machine("cc", V100, V100)]
    jobs = [
        planned("plain"),
        planned("any", gpu=Gpus(count=2)),
        planned("small", gpu=Gpus(count=1, name="T4")),
        planned("labelled", labels=("big",)),
    ]
    assert where(*jobs, runners=pool) == ({"plain": "aa", "any": "cc", "small": "bb", "labelled": "bb"}, {})


def test_what_no_runner_can_ever_take_says_why() -> None:
    pool = [machine("aa"), machine("bb", T4)]
    went, why = where(planned("x", gpu=Gpus(count=2)), planned("y", labels=("a", "b")), runners=pool)
    assert went == {}
    assert why == {
        "x": "no live runner can take it: aa has no GPU; bb has 1 GPU in all",
        "y": "no live runner can take it: aa has no label a, b; bb has no label a, b",
    }


def test_who_waits_for_a_gpu_does_not_keep_the_processors_idle() -> None:
    long = [planned(f"gpu-{number}", gpu=Gpus(count=1)) for number in range(9)]
    plain = planned("plain")
    went, why = where(*long, plain, runners=[machine("aa", T4)])
    assert went["plain"] == "aa"
    assert set(why.values()) == {"waits for a GPU on aa"}


def beating(view: RunnerView, phases: dict[str, Phase], *, pause: str = "", start: str = "start") -> RunnerView:
    beat = msgspec.structs.replace(heartbeat(view.name), attempts=phases, pause=pause, start=start)
    return replace(view, watched=replace(view.watched, heartbeat=beat))


def held_job(planned_: PlannedJob) -> RunState:
    return RunState(jobs={planned_.id: fold_job([assigned()], {})})


def test_what_waits_on_a_runner_that_begins_nothing_goes_elsewhere_and_uses_up_no_try() -> None:
    job = planned("train")
    otter = beating(runner_view("otter"), {f"{job.id}.1": Phase.WAITING}, pause="its disk is full")
    decisions = decide(world(run_view(job, state=held_job(job)), runners=[otter, runner_view("puma")]), moment())
    back, again = events_on(decisions, job.oid)
    assert isinstance(back, Revoked)
    assert (back.reason, back.begun) == (Reason.INTERRUPTED, False)
    assert "begins nothing now (its disk is full)" in back.message
    assert isinstance(again, Assigned)
    assert (again.runner, again.attempt) == ("puma", 2)
    state = fold_job([assigned(), back], {})
    assert retries_left(job.job, state, Reason.INTERRUPTED) == 20


@pytest.mark.parametrize(
    ("phase", "pause", "start"),
    [
        (Phase.PREPARING, "full", "start"),
        (Phase.RUNNING, "full", "start"),
        (Phase.WAITING, "", "start"),
        (Phase.WAITING, "full", "an earlier one"),
    ],
)
def test_what_may_have_begun_is_left_alone(phase: Phase, pause: str, start: str) -> None:
    job = planned("train")
    otter = beating(runner_view("otter"), {f"{job.id}.1": phase}, pause=pause, start=start)
    decisions = decide(world(run_view(job, state=held_job(job)), runners=[otter, runner_view("puma")]), moment())
    assert events_on(decisions, job.oid) == []


def test_what_waits_for_gpus_that_are_gone_is_given_back() -> None:
    job = planned("train", gpu=Gpus(count=1))
    otter = beating(machine("otter"), {f"{job.id}.1": Phase.WAITING})
    decisions = decide(world(run_view(job, state=held_job(job)), runners=[otter]), moment())
    (back,) = events_on(decisions, job.oid)
    assert isinstance(back, Revoked)
    assert "has no GPU" in back.message
    assert "otter has no GPU" in decisions.waiting[job.id]


@pytest.mark.parametrize(("state", "pause"), [(RunnerState.DRAINING, ""), (RunnerState.LIVE, "its disk is full")])
def test_a_runner_that_takes_nothing_is_named_as_the_reason(state: RunnerState, pause: str) -> None:
    job, view = planned("train"), runner_view("otter")
    closed = beating(replace(view, registration=registration("otter", state=state)), {}, pause=pause)
    decisions = decide(world(run_view(job), runners=[closed]), moment())
    assert events_on(decisions, job.oid) == []
    words = "is draining" if state is RunnerState.DRAINING else "takes no jobs now: its disk is full"
    assert decisions.waiting[job.id] == f"no live runner can take it: otter {words}"


def test_what_a_runner_never_began_before_it_ended_uses_up_no_try() -> None:
    job, view = planned("train"), runner_view("otter")
    gone = replace(view, registration=registration("otter", state=RunnerState.GONE))
    (back,) = events_on(decide(world(run_view(job, state=held_job(job)), runners=[gone]), moment()), job.oid)
    assert isinstance(back, Revoked)
    assert (back.begun, back.message) == (False, "attempt 1 is given back: the runner otter has ended")


WANTED = st.builds(Gpus, count=st.integers(1, 3), name=st.sampled_from(["", "T4", "V100"]), memory=st.just(0))
MACHINE = st.lists(st.sampled_from([T4, V100]), max_size=4).map(lambda names: gpus(*names))


@given(MACHINE, st.lists(st.none() | WANTED, max_size=8))
def test_a_turn_places_no_more_than_there_is(total: tuple[Gpu, ...], wanted: list[Gpus | None]) -> None:
    room = Room(
        runner="aa", total=Capacity(cpu=99, memory=1, gpus=total), executors=frozenset({"process"}), cpu=99, gpus=total
    )
    queue = [
        Candidate(key=str(n), order=str(n), job=a_job(resources=Resources(gpu=one)), expected=1e9)
        for n, one in enumerate(wanted)
    ]
    placed = place(queue, [room], interval=0.1).placed
    assert sum(one.count for n, one in enumerate(wanted) if one and str(n) in placed) <= len(total)
    assert all(str(n) in placed for n, one in enumerate(wanted) if one is None)


@given(MACHINE, st.lists(st.none() | WANTED, max_size=8), st.lists(st.integers(0, 7), max_size=30))
def test_no_gpu_is_ever_given_to_two_jobs(total: tuple[Gpu, ...], wanted: list[Gpus | None], ends: list[int]) -> None:
    """Jobs begin as there is room, end in any order, and every one that fits is begun at last."""
    duty = Duty(capacity=Capacity(cpu=99, memory=1, gpus=total))
    for number, one in enumerate(wanted):
        held = taken(given_job(a_job(f"job-{number}", resources=Resources(gpu=one))), RULES)
        duty = duty.put(held)
    names = [held.key for held in duty.held.values()]
    began: set[str] = set()
    for end in [*(end for end in ends if end < len(names)), *range(len(names)), *range(len(names))]:
        duty, _ = react(duty, at(1.0))
        used = Counter(index for held in duty.held.values() if held.at_work for index in held.gpus)
        assert all(count == 1 for count in used.values())
        assert used.keys() | {gpu.index for gpu in duty.free.gpus} == {gpu.index for gpu in total}
        for held in duty.held.values():
            if held.at_work:
                need = held.job.resources.gpu
                assert len(held.gpus) == (need.count if need else 0)
                assert all(need and suits(total[index], need) for index in held.gpus)
        began |= {held.key for held in duty.held.values() if held.at_work}
        if names[end] in duty.held and duty.held[names[end]].at_work:
            duty = duty.put(exited(prepared(duty.held[names[end]], at(1.0)), Exit(exit_code=0), at(1.0)))
            duty = duty.put(discarded(kept(duty.held[names[end]], Kept(), at(1.0))))
    assert began >= {name for name, one in zip(names, wanted, strict=True) if not lacking(total, one)}
