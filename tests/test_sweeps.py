"""Sweeps from the command line: a variable becomes a name of the matrix of every workflow that it concerns."""

import re

import msgspec
import pytest

from dstack.model.errors import Invalid
from dstack.model.plan import Plan
from dstack.model.planner import make_plan
from dstack.model.runspec import RunSpec, Wanted
from dstack.model.runtext import from_text, to_text
from tests.test_planner import ROOT, needs, spec, titles

WORKFLOWS = b"""workflows:
- {name: fetch, commands: [x]}
- {name: prepare, commands: [x], depends-on: [fetch], matrix: {part: [a, b]}}
- {name: train, commands: [x], depends-on: [prepare], env: {MODE: fast}}
- {name: listed, commands: [x], matrix: {include: [{p: 1}, {p: 2}]}}
"""
VARIABLES = b"""variables:
  global: {seed: 1, epochs: 3}
  prepare: {size: 10, mode: x, own: 1}
  train: {lr: 0.1, own: 2, epochs: 4}
"""


def swept(workflow: str, sweeps: dict[str, dict[str, tuple[str, ...]]]) -> RunSpec:
    return msgspec.structs.replace(spec(workflow), sweeps=sweeps)


def plan(workflow: str, sweeps: dict[str, dict[str, tuple[str, ...]]]) -> Plan:
    return make_plan(ROOT, swept(workflow, sweeps), WORKFLOWS, VARIABLES)


def test_a_variable_of_the_workflow_is_swept_there_alone() -> None:
    found = plan("train", {"train": {"lr": ("0.10", "1e-2")}})
    assert titles(found) == ["fetch", "prepare[part=a]", "prepare[part=b]", "train[lr=0.10]", "train[lr=1e-2]"]
    assert [planned.job.variables["lr"] for planned in found.jobs[3:]] == ["0.10", "1e-2"]


def test_a_global_one_is_swept_wherever_it_is_seen_and_each_value_has_its_chain() -> None:
    found = plan("train", {"global": {"seed": ("1", "2")}})
    assert titles(found)[:2] == ["fetch[seed=1]", "fetch[seed=2]"]
    assert needs(found)["prepare[part=a,seed=2]"] == [("fetch[seed=2]", "")]
    assert needs(found)["train[seed=2]"] == [
        ("prepare[part=a,seed=2]", "part=a,seed=2"),
        ("prepare[part=b,seed=2]", "part=b,seed=2"),
    ]


def test_one_of_a_dependency_reaches_what_depends_on_it_and_nothing_before() -> None:
    found = plan("train", {"prepare": {"size": ("10", "20")}})
    assert titles(found)[0] == "fetch"
    assert needs(found)["train[size=20]"] == [
        ("prepare[part=a,size=20]", "part=a,size=20"),
        ("prepare[part=b,size=20]", "part=b,size=20"),
    ]


def test_values_of_a_dependencys_matrix_are_selected() -> None:
    assert titles(plan("train", {"prepare": {"part": ("b",)}})) == ["fetch", "prepare[part=b]", "train"]


def test_two_sweeps_and_what_is_included() -> None:
    assert len(plan("train", {"train": {"lr": ("1", "2")}, "prepare": {"size": ("1", "2", "3")}}).jobs) == 1 + 6 + 6
    found = plan("listed", {"global": {"seed": ("1", "2")}})
    assert titles(found) == [f"listed[p={p},seed={seed}]" for p in (1, 2) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ({"prepare": {"own": ("1", "2")}}, "prepare.own can't be swept: workflow 'train' depends on one that sees it"),
        ({"prepare": {"mode": ("1", "2")}}, "has a mode of its own; write a matrix into the file instead"),
        ({"global": {"epochs": ("1", "2")}}, "global.epochs can't be swept: workflow 'train' depends on one"),
        ({"listed": {"p": ("1",)}}, "variables of 'listed' are swept, which is no part of this run"),
        ({"train": {"lrr": ("1",)}}, "the variable 'lrr' is swept, which the section 'train' doesn't have"),
        ({"train": {"lr": ("1", "1")}}, "lr is swept over a value twice"),
        ({"train": {"lr": ()}}, "lr is swept over no values"),
        ({"train": {"lr": ("a\0",)}}, "variable 'lr': a NUL character"),
        ({"prepare": {"part": ("c",)}}, "part of workflow 'prepare' takes 'a', 'b'; not 'c'"),
    ],
)
def test_what_can_not_be_swept(sweeps: dict[str, dict[str, tuple[str, ...]]], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        plan("train", sweeps)


def test_a_sweep_that_nobody_sees_is_refused() -> None:
    with pytest.raises(Invalid, match="every workflow of this run has a seed of its own"):
        make_plan(
            ROOT,
            swept("fetch", {"global": {"seed": ("1", "2")}}),
            WORKFLOWS,
            b"variables: {global: {seed: 1}, fetch: {seed: 2}}",
        )


def test_sweeps_are_read_back_from_run_yaml() -> None:
    run = swept("train", {"train": {"lr": ("0.10", "on", "a,b")}, "global": {"seed": ("1", "")}})
    run = msgspec.structs.replace(run, repository="r1")
    found, _ = from_text(to_text(run, Wanted()).encode())
    assert found.sweeps == run.sweeps
