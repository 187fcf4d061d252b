"""Which jobs may stand in for which: what is in a key and what isn't, and what is said where two keys differ."""

from typing import Any

import msgspec
import pytest

from dstack.model.events import Reused
from dstack.model.job import Gpus, Job, Need, Reason, Resources, Retry, Shell, Tagged, Volume
from dstack.model.past import Past
from dstack.model.reuse import Answer, Hint, Origin, Parts, difference_text, differences, job_parts, may_reuse, parts_of
from dstack.model.runspec import Code, Options, RunSpec, Via
from dstack.model.states import JobState, RunState
from dstack.model.status import Status
from dstack.model.world import RunView
from tests.model_values import EPOCH, finished, planned, run_view, spec

JOB = Job(
    root="a" * 40,
    workflow="train",
    matrix={"seed": "1"},
    image="python:3.12",
    commands=("python train.py",),
    environment={"TZ": "UTC"},
    variables={"seed": "1", "lr": "0.1"},
    artifacts=("model",),
)
INPUT = Origin(workflow="prepare", manifest="1" * 64)

IN_THE_KEY: list[tuple[dict[str, Any], str]] = [
    ({"image": "python:3.13"}, "image: python:3.12 → python:3.13"),
    ({"image": None}, "image: python:3.12 → (none)"),
    ({"commands": ("python train.py", "echo done")}, "commands"),
    ({"shell": Shell.BASH}, "shell: sh → bash"),
    ({"environment": {"TZ": ""}}, "env TZ: UTC → (empty)"),
    ({"environment": {}}, "env TZ: UTC → (none)"),
    ({"variables": {"seed": "1", "lr": "0.2"}}, "variable lr: 0.1 → 0.2"),
    ({"variables": {"seed": "1"}}, "variable lr: 0.1 → (none)"),
    ({"matrix": {}}, "which variables are the matrix's"),
    ({"working_dir": "src"}, "working-dir: . → src"),
    ({"artifacts": ("model", "log")}, "artifacts"),
]
NOT_IN_IT: list[dict[str, Any]] = [
    {"root": "b" * 40},
    {"resources": Resources(cpu=4, memory=2**30, gpu=Gpus(count=1))},
    {"timeout": 60.0, "stop_grace": 5.0},
    {"retry": Retry(attempts=3)},
    {"labels": ("gpu",)},
    {"volumes": (Volume(name="data", path="/data"),)},
    {"cache_dirs": (".cache",)},
    {"secrets": ("TOKEN",)},
    {"max_parallel": 2},
]


def parts(job: Job = JOB, content: str = "c" * 40, *inputs: Origin) -> Parts:
    return parts_of(job, content, inputs or (INPUT,))


@pytest.mark.parametrize(("change", "said"), IN_THE_KEY, ids=[said for _, said in IN_THE_KEY])
def test_what_a_result_depends_on_is_in_the_key_and_is_named(change: dict[str, Any], said: str) -> None:
    other = parts(msgspec.structs.replace(JOB, **change))
    assert other.key != parts().key
    assert differences(parts(), other) == (said,)


@pytest.mark.parametrize("change", NOT_IN_IT, ids=[next(iter(change)) for change in NOT_IN_IT])
def test_where_and_how_long_a_job_runs_is_not_in_the_key(change: dict[str, Any]) -> None:
    other = parts(msgspec.structs.replace(JOB, **change))
    assert other.key == parts().key
    assert differences(parts(), other) == ()


def test_files_and_inputs_are_in_the_key() -> None:
    changed = [
        parts(JOB, "d" * 40),
        parts(JOB, "c" * 40, msgspec.structs.replace(INPUT, manifest="2" * 64)),
        parts(JOB, "c" * 40, msgspec.structs.replace(INPUT, under="seed=1")),
        parts(JOB, "c" * 40, msgspec.structs.replace(INPUT, matrix={"seed": "2"})),
        parts(JOB, "c" * 40, INPUT, Origin(workflow="data", manifest="3" * 64)),
    ]
    assert len({one.key for one in (*changed, parts())}) == 6
    assert differences(parts(), changed[0]) == ("files of the repository",)
    assert differences(parts(), changed[1]) == ("input prepare",)
    assert differences(parts(), changed[4]) == ("input data",)


def test_the_name_of_a_tag_is_not_in_the_key_but_what_it_holds() -> None:
    old, new = (
        Origin(workflow="prepare", manifest="1" * 64, tag="v1"),
        Origin(workflow="prepare", manifest="1" * 64, tag="v2"),
    )
    moved = msgspec.structs.replace(old, manifest="2" * 64)
    assert parts(JOB, "c", old).key == parts(JOB, "c", new).key
    assert differences(parts(JOB, "c", old), parts(JOB, "c", new)) == ()
    assert differences(parts(JOB, "c", old), parts(JOB, "c", moved)) == ("input prepare:v1",)


def test_the_key_is_a_digest_that_survives_writing_and_reading() -> None:
    """A default that was written out, or read, is the same default."""
    again = msgspec.json.decode(msgspec.json.encode(parts()), type=Parts)
    assert again.key == parts().key
    assert len(parts().key) == 64
    bare = parts_of(Job(root="a", workflow="w", commands=("x",)), "c", ())
    full = parts_of(
        Job(root="a", workflow="w", commands=("x",), working_dir=".", environment=dict[str, str]()), "c", ()
    )
    assert bare.key == full.key


def test_many_differences_are_cut_short_and_long_values_too() -> None:
    other = msgspec.structs.replace(
        JOB, image="x" * 500, commands=("y",), working_dir="src", variables={"seed": "2", "lr": "1"}
    )
    text = difference_text(differences(parts(), parts(other)))
    assert (
        text
        == "variable lr: 0.1 → 1, variable seed: 1 → 2, image: python:3.12 → " + "x" * 59 + "…, commands and 1 more"
    )


def test_the_key_is_unknown_until_all_that_is_needed_is_done() -> None:
    prepare = planned("prepare")
    train = planned("train", prepare).job
    contents = {"train": "c"}
    assert job_parts(train, contents, lambda _: None) is None
    assert job_parts(train, {}, lambda _: (prepare.job, None)) is None
    found = job_parts(train, contents, lambda _: (prepare.job, "1" * 64))
    assert found is not None
    assert found.inputs == (Origin(workflow="prepare", manifest="1" * 64),)


def test_what_tags_hold_comes_before_what_jobs_made() -> None:
    prepare = planned("prepare")
    job = msgspec.structs.replace(
        planned("train").job,
        needs=(Need(job=prepare.id, workflow="prepare"),),
        tagged=(Tagged(tag="v1", workflow="data", manifest="9" * 64),),
    )
    found = job_parts(job, {"train": "c"}, lambda _: (prepare.job, None))
    assert found is not None
    assert [one.title for one in found.inputs] == ["data:v1", "prepare"]


@pytest.mark.parametrize(
    ("options", "via", "cache", "allowed"),
    [
        (Options(), Via.CLI, True, True),
        (Options(cache=False), Via.CLI, True, False),
        (Options(), Via.CLI, False, False),
        (Options(), Via.SCHEDULE, True, False),
    ],
)
def test_who_may_be_reused(options: Options, via: Via, *, cache: bool, allowed: bool) -> None:
    run = msgspec.structs.replace(spec(options=options), via=via)
    job = msgspec.structs.replace(planned("train").job, cache=cache)
    assert may_reuse(run, job) is allowed


def test_a_dependency_of_a_scheduled_run_may_be_reused() -> None:
    run = msgspec.structs.replace(spec(), via=Via.SCHEDULE)
    assert may_reuse(run, planned("prepare").job)


TRAIN = planned("train")


def past_view(state: JobState | None, contents: dict[str, str] | None = None) -> RunView:
    given: RunSpec = msgspec.structs.replace(
        spec(), code=Code(commit="c" * 40, snapshot="d" * 40, contents=contents or {"train": "c"})
    )
    view = run_view(TRAIN, state=RunState(jobs={TRAIN.id: state} if state else {}))
    return RunView(**{**{name: getattr(view, name) for name in view.__slots__}, "spec": given})


KEY = parts_of(TRAIN.job, "c", ()).key
HINT = Hint(run=str(past_view(None).key), job=TRAIN.id)


def test_a_true_hint_is_an_answer() -> None:
    done = msgspec.structs.replace(finished(), manifest="1" * 64)
    answer = Past([past_view(JobState(finished=done))]).answer(KEY, HINT)
    assert answer == Answer(run=HINT.run, job=TRAIN.id, manifest="1" * 64, log=f"logs/{HINT.run}/{TRAIN.id}/1")


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.ABORTED, Status.SKIPPED])
def test_only_what_is_done_answers(status: Status) -> None:
    assert Past([past_view(JobState(finished=finished(status, reason=Reason.EXIT)))]).answer(KEY, HINT) is None


def test_what_is_assigned_or_in_a_new_life_does_not_answer() -> None:
    assert Past([past_view(None)]).answer(KEY, HINT) is None


def test_a_hint_that_lies_about_its_key_run_or_job_is_no_answer() -> None:
    past = Past([past_view(JobState(finished=finished()))])
    assert past.answer(KEY, HINT) is not None
    assert past.answer("0" * 64, HINT) is None
    assert past.answer(KEY, msgspec.structs.replace(HINT, job="0" * 12)) is None
    assert past.answer(KEY, msgspec.structs.replace(HINT, run="other-run-1.000000000000")) is None
    assert Past([past_view(JobState(finished=finished()), {"train": "other"})]).answer(KEY, HINT) is None


def test_what_was_reused_itself_passes_on_whose_work_it_is() -> None:
    reused = Reused(seq=1, at=EPOCH, generation=1, run="old-run-1.aaaaaaaaaaaa", job="b" * 12, manifest="1" * 64)
    answer = Past([past_view(JobState(finished=reused))]).answer(KEY, HINT)
    assert answer == Answer(run="old-run-1.aaaaaaaaaaaa", job="b" * 12, manifest="1" * 64)
