"""Tags: what a tag holds, which run can serve a dependency, and when `run --tag` gives one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace as with_fields

from dstack.model import refs, tags
from dstack.model.decide import Decisions, decide
from dstack.model.errors import Invalid
from dstack.model.events import Finished, Planned, RunFinished, Tagged
from dstack.model.groups import independent_groups
from dstack.model.job import Reason, job_oid
from dstack.model.job import Tagged as TaggedInput
from dstack.model.observation import AppendNotes, SetAssignments, SetTag
from dstack.model.plan import Plan, PlannedJob
from dstack.model.pool import Input
from dstack.model.runspec import Options, TagContent
from dstack.model.states import JobState, RunState
from dstack.model.status import Status
from dstack.model.tags import TaggedFiles
from dstack.model.workflow import TagNeed
from dstack.model.world import RunView, World
from tests.model_values import EPOCH, ROOT, moment, planned, run_view, runner_view, world

NOW = moment()
PREPARE, TRAIN = planned("prepare"), planned("train")
NEED = TagNeed(workflow="prepare", tag="latest")


@pytest.mark.parametrize("tag", ["latest", "v1.0", "Best_of-3", "1", "a" * 63])
def test_a_tag_is_read_back_from_its_ref(tag: str) -> None:
    assert refs.check_tag(tag) == tag
    assert refs.parse_tag(refs.tag(tag)) == tag


@pytest.mark.parametrize(
    "tag", ["", "-x", "x-", ".x", "a..b", "x.lock", "a/b", "a b", "é", "a" * 64, "a~1", "a:b", "@{"]
)
def test_what_no_ref_can_be_called_is_no_tag(tag: str) -> None:
    with pytest.raises(Invalid, match="can't be a tag"):
        refs.check_tag(tag)
    assert refs.parse_tag(f"refs/tags/dstack/{tag}") is None


def job_of(workflow: str, **fields: object) -> PlannedJob:
    """A job with more than the makers of test values know."""
    job = with_fields(planned(workflow).job, **fields)
    return PlannedJob(oid=job_oid(job), job=job)


def files() -> TaggedFiles:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return TaggedFiles(
        repository="r", tag="raw", store="file:///s", manifest="e" * 64, folder="data", tagged_by="ada", tagged_at=at
    )


def test_what_a_tag_of_files_says_is_read_back_and_a_later_versions_refused() -> None:
    assert tags.from_bytes(tags.to_bytes(files())) == files()
    with pytest.raises(Invalid, match="later version"):
        tags.from_bytes(tags.to_bytes(with_fields(files(), version=2)))
    with pytest.raises(Invalid, match=r"tag\.yaml"):
        tags.from_bytes(b"workflows: []")


def ended(status: Status = Status.DONE, manifest: str | None = "m") -> JobState:
    event = Finished(seq=1, at=EPOCH, generation=1, status=status, reason=Reason.OK, manifest=manifest)
    return JobState(finished=event)


def state(**jobs: JobState) -> RunState:
    by_id = {one.id: jobs[one.job.workflow] for one in (PREPARE, TRAIN) if one.job.workflow in jobs}
    begun = Planned(seq=1, at=EPOCH, generation=1, jobs=(), store="file:///store")
    return RunState(planned=begun, jobs=by_id)


def test_a_run_gives_the_sets_of_its_jobs_that_are_done() -> None:
    sweep = [job_of("fit", matrix={"lr": lr}) for lr in ("1", "2", "3")]
    jobs = {sweep[0].id: ended(manifest="a"), sweep[1].id: ended(manifest="b"), sweep[2].id: ended(Status.FAILED)}
    content = tags.content_of_run(ROOT, Plan(jobs=tuple(sweep)), replace(state(), jobs=jobs))
    assert content == TagContent(root=ROOT, store="file:///store", manifests={"fit": {"lr=1": "a", "lr=2": "b"}})
    assert tags.content_of_files(files(), ROOT).manifests == {"": {"": "e" * 64}}


REFUSED = [
    ("train", (TRAIN,), {"train": ended()}, r"has no workflow 'prepare'; it has train"),
    ("unfinished", (PREPARE,), {}, r"fast-rabbit-1 has not finished prepare"),
    ("failed", (PREPARE,), {"prepare": ended(Status.FAILED)}, r"prepare of the run fast-rabbit-1 is FAILED"),
    ("empty", (PREPARE,), {"prepare": ended(manifest=None)}, r"has left no artifacts"),
]


@pytest.mark.parametrize(("_name", "jobs", "states", "why"), REFUSED, ids=[one[0] for one in REFUSED])
def test_a_run_that_can_not_serve_says_why(
    _name: str, jobs: tuple[PlannedJob, ...], states: dict[str, JobState], why: str
) -> None:
    with pytest.raises(Invalid, match=f"prepare:latest can't be used: .*{why}"):
        tags.check_need(NEED, "fast-rabbit-1", Plan(jobs=jobs), state(**states))
    tags.check_need(NEED, "fast-rabbit-1", Plan(jobs=(PREPARE,)), state(prepare=ended()))


def finished_run(status: Status = Status.DONE, *, tagged: bool = False, tag: str | None = "best") -> RunView:
    end = RunFinished(seq=2, at=EPOCH, generation=1, status=status, reason=Reason.OK)
    event = Tagged(seq=3, at=EPOCH, generation=1, tag="best") if tagged else None
    done = replace(state(train=ended(status)), finished=end, tagged=event)
    view = run_view(TRAIN, state=done, lines={ROOT: 2})
    return replace(view, spec=with_fields(view.spec, options=Options(tag=tag)))


def tag_of(decisions: Decisions) -> tuple[list[str], list[str]]:
    """The roots the turn tags, and what it says of it in notes."""
    given = [change.root for change in decisions.tags if isinstance(change, SetTag)]
    notes = [change for change in decisions.tags if isinstance(change, AppendNotes)]
    return given, [event.message for note in notes for events in note.events.values() for event in events]


def with_tags(made: World, **at: str) -> World:
    return replace(made, tags=at)


def test_a_run_that_is_done_gets_its_tag_once() -> None:
    assert tag_of(decide(world(finished_run()), NOW)) == ([ROOT], ["fast-rabbit-1 is tagged best"])
    assert tag_of(decide(world(finished_run(tagged=True)), NOW)) == ([], [])
    assert tag_of(decide(world(finished_run(tag=None)), NOW)) == ([], [])


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.ABORTED])
def test_a_run_that_is_not_done_gets_none(status: Status) -> None:
    assert tag_of(decide(world(finished_run(status)), NOW)) == ([], [])


def test_a_tag_that_somebody_gave_it_by_hand_is_only_noted() -> None:
    assert tag_of(decide(with_tags(world(finished_run()), best=ROOT), NOW)) == ([], ["fast-rabbit-1 is tagged best"])


def test_a_tag_moves_from_another_run() -> None:
    assert tag_of(decide(with_tags(world(finished_run()), best="b" * 40), NOW))[0] == [ROOT]


def test_a_tag_has_a_push_of_its_own() -> None:
    fresh = replace(run_view(PREPARE), root="b" * 40)
    decisions = decide(world(finished_run(), fresh, runners=[runner_view()]), NOW)
    assert tag_of(decisions)[0] == [ROOT]
    assert decisions.changes
    assert not any(isinstance(change, SetTag) for change in decisions.changes)


def test_of_two_runs_with_one_tag_the_one_submitted_last_keeps_it() -> None:
    early, late = finished_run(), finished_run()
    late = replace(late, spec=with_fields(late.spec, submitted_at=late.spec.submitted_at + timedelta(1)), root="c" * 40)
    assert tag_of(decide(world(late, early), NOW))[0] == [ROOT]
    assert tag_of(decide(world(late, finished_run(tagged=True)), NOW))[0] == ["c" * 40]


def test_a_refused_tag_and_what_is_said_of_it_stand_and_fall_together() -> None:
    run = finished_run()
    other = AppendNotes(key=refs.RunKey("slow-fox-2", "0" * 12), writer="controller", events={})
    changes = [*decide(world(run), NOW).tags, other]
    assert sorted(len(group) for group in independent_groups(changes)) == [1, 2]


def test_inputs_of_a_tag_come_before_those_of_jobs_and_name_a_store_that_is_not_the_runs() -> None:
    here, there = ("file:///store", "s3://other")
    tagged = tuple(TaggedInput(tag="latest", manifest=one, store=url) for one, url in (("m1", here), ("m2", there)))
    job = job_of("train", tagged=tagged)
    decisions = decide(world(run_view(job), runners=[runner_view()]), NOW)
    (held,) = (change for change in decisions.changes if isinstance(change, SetAssignments))
    (attempt,) = held.attempts.values()
    assert attempt.inputs == (Input(job="", manifest="m1"), Input(job="", manifest="m2", store=there))
