"""Dependencies on tags: which artifacts of a tagged run a job gets, and what is said where they lack."""

import re

import msgspec
import pytest

from dstack.model.errors import Invalid
from dstack.model.job import Job, Tagged
from dstack.model.planner import make_plan
from dstack.model.runspec import TagContent
from tests.test_planner import ROOT, spec

WORKFLOWS = b"""workflows:
- {name: train, commands: [x], depends-on: [prepare:v1, raw:files], matrix: {lr: [1, 2]}}
- {name: plain, commands: [x], depends-on: ['prepare:v1']}
- {name: other, commands: [x], depends-on: ['lost:v1']}
- {name: narrow, commands: [x], depends-on: ['prepare:v1'], matrix: {lr: [3]}}
- {name: after, commands: [x], depends-on: [plain]}
"""
A, B, C = "a" * 64, "b" * 64, "c" * 64
V1 = TagContent(
    root=ROOT,
    store="file:///s",
    manifests={"prepare": {"lr=1,part=x": A, "lr=1,part=y": B, "lr=2,part=x": C}, "fetch": {"": A}},
)
FILES = TagContent(root=ROOT, store="", manifests={"": {"": B}})


def jobs(workflow: str, tags: dict[str, TagContent]) -> list[Job]:
    run = msgspec.structs.replace(spec(workflow), tags=tags)
    return [planned.job for planned in make_plan(ROOT, run, WORKFLOWS, None).jobs]


def test_a_job_gets_what_agrees_with_it_and_files_as_they_are() -> None:
    first, second = jobs("train", {"v1": V1, "files": FILES})
    files = Tagged(tag="files", manifest=B)
    made = {"tag": "v1", "workflow": "prepare", "store": "file:///s"}
    assert first.tagged == (
        Tagged(manifest=A, under="lr=1,part=x", **made),
        Tagged(manifest=B, under="lr=1,part=y", **made),
        files,
    )
    assert second.tagged == (Tagged(manifest=C, **made), files)


def test_without_a_shared_name_a_job_gets_all() -> None:
    (job,) = jobs("plain", {"v1": V1})
    assert [(tagged.manifest, tagged.under) for tagged in job.tagged] == [
        (A, "lr=1,part=x"),
        (B, "lr=1,part=y"),
        (C, "lr=2,part=x"),
    ]


def test_a_tag_is_part_of_what_a_job_is() -> None:
    moved = TagContent(root=ROOT, store="file:///s", manifests={"prepare": {"": C}})
    assert jobs("plain", {"v1": V1}) != jobs("plain", {"v1": moved})
    assert [job.tagged == () for job in jobs("after", {"v1": V1})] == [False, True]


@pytest.mark.parametrize(
    ("workflow", "tags", "message"),
    [
        ("plain", {}, "workflow 'plain' depends on 'prepare:v1', a tag this run says nothing of"),
        ("other", {"v1": V1}, "'lost:v1', whose run has no artifacts of that workflow; it has fetch, prepare"),
        ("narrow", {"v1": V1}, "workflow 'narrow' depends on 'prepare:v1', whose run has no 'lr=3'"),
        (
            "plain",
            {"v1": TagContent(root=ROOT, store="", manifests={"prepare": {"": "../x"}})},
            "the run says of the tag 'v1' that its artifacts are '../x', which can't be",
        ),
        ("plain", {"v1": TagContent(root=ROOT, store="", manifests={"prepare": {}})}, "no artifacts of that workflow"),
    ],
)
def test_what_a_tag_lacks_is_said(workflow: str, tags: dict[str, TagContent], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        jobs(workflow, tags)
