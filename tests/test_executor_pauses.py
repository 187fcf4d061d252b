"""An executor that begins nothing for now, as a Docker engine that is away: its jobs go elsewhere, the others on."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cli.runners import COLUMNS, RunnerLine, idle, row, unheeded
from dstack.model.decide import decide
from dstack.model.events import Assigned, Revoked
from dstack.model.job import Reason
from dstack.model.pool import Capacity, Phase
from dstack.model.retries import retries_left
from dstack.model.states import RunState, fold_job
from dstack.model.world import RunnerView
from runner.duty import Duty, react
from runner.facts import taken
from tests.agents import Office
from tests.duties import RULES, a_job, at, given_job
from tests.model_values import assigned, heartbeat, moment, planned, registration, run_view, runner_view, world
from tests.test_decide import assignments, events_on

AWAY = "Docker can't be reached"


def machine(
    name: str, *, start: str = "start", phases: dict[str, Phase] | None = None, away: bool = True
) -> RunnerView:
    """One with both executors."""
    view = runner_view(name)
    beat = msgspec.structs.replace(
        heartbeat(name), start=start, attempts=phases or {}, pauses={"docker": AWAY} if away else {}
    )
    one = msgspec.structs.replace(registration(name), executors=("process", "docker"))
    return replace(view, registration=one, watched=replace(view.watched, heartbeat=beat))


def test_a_runner_without_its_engine_takes_the_jobs_that_need_none() -> None:
    plain, boxed = planned("plain"), planned("boxed", image="busybox")
    decisions = decide(world(run_view(plain, boxed), runners=[machine("otter")]), moment())
    assert [held.job for held in assignments(decisions)["otter"].values()] == [plain.id]
    assert decisions.waiting == {boxed.id: f"no live runner can take it: otter takes no docker jobs now: {AWAY}"}
    decisions = decide(world(run_view(boxed), runners=[machine("otter"), machine("puma", away=False)]), moment())
    assert list(assignments(decisions)) == ["puma"]


def test_what_waits_for_the_engine_goes_elsewhere_and_uses_up_no_try() -> None:
    plain, boxed = planned("plain"), planned("boxed", image="busybox")
    state = RunState(jobs={job.id: fold_job([assigned()], {}) for job in (plain, boxed)})
    otter = machine("otter", phases={f"{job.id}.1": Phase.WAITING for job in (plain, boxed)})
    runners = [otter, machine("puma", away=False)]
    decisions = decide(world(run_view(plain, boxed, state=state), runners=runners), moment())
    assert events_on(decisions, plain.oid) == []
    back, again = events_on(decisions, boxed.oid)
    assert isinstance(back, Revoked)
    assert f"the runner otter begins no docker jobs now ({AWAY})" in back.message
    assert isinstance(again, Assigned)
    assert again.runner == "puma"
    assert retries_left(boxed.job, fold_job([assigned(), back], {}), Reason.INTERRUPTED) == 20


def test_what_an_earlier_start_said_of_its_engine_counts_no_more() -> None:
    boxed = planned("boxed", image="busybox")
    decisions = decide(world(run_view(boxed), runners=[machine("otter", start="an earlier one")]), moment())
    assert list(assignments(decisions)) == ["otter"]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_runner_whose_executors_all_wait_says_so_and_begins_jobs_later(office: Office) -> None:
    office.executor.pause = AWAY
    office.settle()
    one = given_job()
    office.assign(one)
    office.settle(5.0)
    beat = office.heartbeat()
    assert (beat.pause, beat.pauses) == (AWAY, {"process": AWAY})
    assert beat.attempts == {one.attempt.key: Phase.WAITING}
    assert office.executor.started == []
    office.executor.pause = ""
    office.executor.unlimited = ("memory",)
    office.until(lambda: office.executor.started == [one.attempt.key])
    office.settle(5.0)
    beat = office.heartbeat()
    assert (beat.pause, beat.pauses, beat.unlimited) == ("", {}, ("memory",))


def test_jobs_of_the_other_executor_are_begun_and_are_not_kept_waiting_behind() -> None:
    boxed, plain = given_job(a_job("a", image="busybox")), given_job(a_job("b"))
    duty = Duty(capacity=Capacity(cpu=1.0, memory=2**30), paused=frozenset({"docker"}))
    for one in (boxed, plain):
        duty = duty.put(taken(one, replace(RULES, executors=frozenset({"process", "docker"}))))
    duty, _ = react(duty, at(0.0))
    assert {key: held.phase for key, held in duty.held.items()} == {
        boxed.attempt.key: Phase.WAITING,
        plain.attempt.key: Phase.PREPARING,
    }


def line(**told: object) -> RunnerLine:
    """A runner as `dstack runners` lists it."""
    plain = {
        "runner": "otter",
        "host": "here",
        "status": "live",
        "cpu": 1.0,
        "memory": 1,
        "labels": (),
        "executors": (),
    }
    return msgspec.convert({**plain, "jobs": (), "updated_at": at(0.0).wall, **told}, RunnerLine)


def test_a_list_of_runners_names_volumes_and_what_can_be_taken_away() -> None:
    there = line(volumes=("data", "models"), interruptible=True)
    columns = [column.title for column in COLUMNS]
    now = at(0.0).wall
    shown = dict(zip(columns, row(there, now), strict=True))
    assert (shown["VOLUMES"], shown["STATUS"]) == ("data,models", "live, interruptible")
    gone = line(volumes=("data",), interruptible=True, status="gone")
    assert dict(zip(columns, row(gone, now), strict=True))["STATUS"] == "gone"


def test_a_list_of_runners_says_what_is_odd_about_them() -> None:
    assert (idle(line()), unheeded([line()])) == ([], [])
    assert idle(line(pauses={"docker": AWAY})) == [f"no docker jobs: {AWAY}"]
    assert idle(line(pause="it is draining", pauses={"docker": AWAY})) == ["it is draining"]
    (warning,) = unheeded([line(unlimited=("memory", "cpu")), line(unlimited=("memory",), status="lost")])
    assert warning.startswith("Docker on otter does not enforce limits on memory, cpu:")
