"""The planner: jobs of a run, their order, needs and ids, and what is refused before it grows."""

import itertools
import re
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from dstack.model.job import Job, Need, Shell, from_bytes, job_oid, to_bytes
from dstack.model.plan import Plan
from dstack.model.planner import MAX_NEEDS, environment_names, make_plan
from dstack.model.runspec import Code, RunSpec
from dstack.model.workflows import parse_workflows

ROOT = "5ab98f2089ae" + "0" * 28
OID = "1" * 40
CHAIN = b"""
workflows:
- {name: evaluate, commands: [e], depends-on: [train], matrix: {lr: [a, b]}}
- {name: train, commands: [t], depends-on: [prepare], matrix: {lr: [a, b], seed: [1, 2]}, artifacts: [model]}
- {name: prepare, commands: [p], env: [B=1, A, C]}
- {name: unrelated, commands: [u]}
"""


def spec(
    workflow: str,
    variables: dict[str, dict[str, str]] | None = None,
    matrix: dict[str, tuple[str, ...]] | None = None,
    environment: dict[str, str] | None = None,
) -> RunSpec:
    return RunSpec(
        repository="r",
        run="fast-rabbit-1",
        workflow=workflow,
        variables=variables or {},
        matrix=matrix or {},
        environment=environment or {},
        code=Code(commit=OID, snapshot=OID),
        submitted_by="ada",
        submitted_at=datetime(2026, 11, 22, tzinfo=UTC),
        nonce="n",
    )


def titles(plan: Plan) -> list[str]:
    return [planned.job.title for planned in plan.jobs]


def needs(plan: Plan) -> dict[str, list[tuple[str, str]]]:
    by_id = {planned.id: planned.job.title for planned in plan.jobs}
    return {planned.job.title: [(by_id[need.job], need.under) for need in planned.job.needs] for planned in plan.jobs}


def test_a_chain_with_matrices() -> None:
    plan = make_plan(ROOT, spec("evaluate"), CHAIN, None)
    trains = [f"train[lr={lr},seed={seed}]" for lr in "ab" for seed in "12"]
    assert titles(plan) == ["prepare", *trains, "evaluate[lr=a]", "evaluate[lr=b]"]
    assert needs(plan) == {
        "prepare": [],
        **{title: [("prepare", "")] for title in trains},
        "evaluate[lr=a]": [(trains[0], "lr=a,seed=1"), (trains[1], "lr=a,seed=2")],
        "evaluate[lr=b]": [(trains[2], "lr=b,seed=1"), (trains[3], "lr=b,seed=2")],
    }


def test_ids_are_those_of_the_blobs_and_depend_on_the_root() -> None:
    plan = make_plan(ROOT, spec("evaluate"), CHAIN, None)
    assert [planned.oid for planned in plan.jobs] == [job_oid(planned.job) for planned in plan.jobs]
    assert all(from_bytes(to_bytes(planned.job)) == planned.job for planned in plan.jobs)
    again = make_plan(ROOT, spec("evaluate"), CHAIN, None)
    other = make_plan("6" * 40, spec("evaluate"), CHAIN, None)
    assert again == plan
    assert {planned.oid for planned in plan.jobs}.isdisjoint(planned.oid for planned in other.jobs)


def test_a_job_of_words_that_this_version_does_not_know_is_refused() -> None:
    known = to_bytes(Job(root="a" * 40, workflow="train", commands=("true",), shell=Shell.BASH))
    with pytest.raises(Invalid, match="job object"):
        from_bytes(known.replace(b'"bash"', b'"fish"'))


def test_what_is_written_as_the_default_is_the_default() -> None:
    plain = b"workflows: [{name: a, commands: [x], retry: 2}]"
    keys = "stop-grace: 30s, working-dir: ./, cache: true, resources: {}, env: {}, matrix: {}, artifacts: []"
    wordy = f"workflows: [{{name: a, commands: x, {keys}, retry: {{attempts: 2, on: [], backoff: 0s}}}}]"
    plan = make_plan(ROOT, spec("a"), plain, None)
    assert make_plan(ROOT, spec("a"), wordy.encode(), None) == plan
    assert (
        to_bytes(plan.jobs[0].job)
        == f'{{"commands":["x"],"retry":{{"attempts":2}},"root":"{ROOT}","workflow":"a"}}'.encode()
    )


def test_a_chosen_value_reaches_the_dependencies_that_share_the_name() -> None:
    plan = make_plan(ROOT, spec("evaluate", matrix={"lr": ("b",)}), CHAIN, None)
    assert titles(plan) == ["prepare", "train[lr=b,seed=1]", "train[lr=b,seed=2]", "evaluate[lr=b]"]


def test_chosen_values_of_the_named_workflow_alone() -> None:
    plan = make_plan(ROOT, spec("train", matrix={"seed": ("2",)}), CHAIN, None)
    assert titles(plan) == ["prepare", "train[lr=a,seed=2]", "train[lr=b,seed=2]"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, "section"),
        ({"global": {"v": "flag-global"}}, "section"),
        ({"prepare": {"v": "flag"}}, "flag"),
        ({"prepare": {"v": ""}}, ""),
    ],
)
def test_precedence_where_the_section_has_the_variable(overrides: dict[str, dict[str, str]], expected: str) -> None:
    variables = b"variables: {global: {v: global}, prepare: {v: section}}"
    plan = make_plan(ROOT, spec("prepare", overrides), CHAIN, variables)
    assert plan.jobs[0].job.variables == {"v": expected}


def test_precedence_where_global_alone_has_it() -> None:
    variables = b"variables: {global: {v: global}}"
    assert make_plan(ROOT, spec("prepare"), CHAIN, variables).jobs[0].job.variables == {"v": "global"}
    plan = make_plan(ROOT, spec("prepare", {"global": {"v": "flag"}}), CHAIN, variables)
    assert plan.jobs[0].job.variables == {"v": "flag"}


def test_values_of_the_matrix_are_variables_over_all_others() -> None:
    plan = make_plan(ROOT, spec("evaluate"), CHAIN, b"variables: {global: {lr: global, x: 1}}")
    assert plan.jobs[-1].job.matrix == {"lr": "b"}
    assert plan.jobs[-1].job.variables == {"lr": "b", "x": "1"}
    assert plan.jobs[0].job.variables == {"lr": "global", "x": "1"}


def test_what_env_only_names_is_taken_from_the_submitter_or_stays_unset() -> None:
    plan = make_plan(ROOT, spec("prepare", environment={"A": "mine", "Z": "unasked"}), CHAIN, None)
    assert plan.jobs[0].job.environment == {"B": "1", "A": "mine"}
    assert environment_names(parse_workflows(CHAIN), "evaluate") == ("A", "C")
    assert environment_names(parse_workflows(CHAIN), "unrelated") == ()


def test_a_secret_looking_name_was_the_submitters_to_judge() -> None:
    text = b"workflows: [{name: a, commands: [x], env: [EOS_TOKEN=x]}]"
    assert make_plan(ROOT, spec("a"), text, None).jobs[0].job.environment == {"EOS_TOKEN": "x"}


def test_without_shared_names_every_job_is_needed_and_with_one_job_there_is_no_folder() -> None:
    text = b"""workflows:
- {name: a, commands: [x], matrix: {s: [1, 2]}}
- {name: b, commands: [x], matrix: {t: [1]}}
- {name: c, commands: [x], depends-on: [b, a], matrix: {u: [1, 2]}}
"""
    plan = make_plan(ROOT, spec("c"), text, None)
    expected = [("b[t=1]", ""), ("a[s=1]", "s=1"), ("a[s=2]", "s=2")]
    assert titles(plan) == ["a[s=1]", "a[s=2]", "b[t=1]", "c[u=1]", "c[u=2]"]
    assert needs(plan)["c[u=1]"] == needs(plan)["c[u=2]"] == expected


def test_two_dependents_need_the_combinations_of_both_and_no_others() -> None:
    text = b"""workflows:
- {name: d, commands: [x], matrix: {a: [1, 2], b: [1, 2, 3]}}
- {name: e, commands: [x], depends-on: [d], matrix: {a: [1], b: [1, 2]}}
- {name: f, commands: [x], depends-on: [d], matrix: {a: [2], b: [3]}}
- {name: g, commands: [x], depends-on: [e, f]}
"""
    plan = make_plan(ROOT, spec("g"), text, None)
    assert titles(plan)[:3] == ["d[a=1,b=1]", "d[a=1,b=2]", "d[a=2,b=3]"]


def test_folders_are_safe_and_different_whatever_the_values_are() -> None:
    values = ["../..", "a/b", "a,s=1", "a%2Fb", " x", "x ", "", "é", "\n", "v" * 300, "v" * 301, "..", "~", "-"]
    listed = ", ".join('"' + value.replace("\n", "\\n") + '"' for value in values)
    text = f"workflows:\n- {{name: a, commands: [x], matrix: {{s: [{listed}]}}}}\n"
    text += "- {name: b, commands: [x], depends-on: [a]}\n"
    folders = [need.under for need in make_plan(ROOT, spec("b"), text.encode(), None).jobs[-1].job.needs]
    assert len(set(folders)) == len(values)
    assert all(re.fullmatch(r"s=[A-Za-z0-9._+@:~% -]*", folder, re.ASCII) for folder in folders)
    assert all(len(folder) < 255 and not folder.endswith(" ") for folder in folders)
    assert folders[:4] == ["s=..%2F..", "s=a%2Fb", "s=a%2Cs%3D1", "s=a%252Fb"]


@pytest.mark.parametrize(
    ("run", "variables", "message"),
    [
        (spec("trian"), None, "has no workflow 'trian' (did you mean 'train'?)"),
        (spec("train", matrix={"lrr": ("a",)}), None, "workflow 'train' has no matrix name 'lrr' (did you mean 'lr'?)"),
        (spec("train", matrix={"lr": ("c",)}), None, "lr of workflow 'train' takes 'a', 'b'; not 'c'"),
        (spec("train", matrix={"lr": ()}), None, "lr of workflow 'train' takes 'a', 'b'; not none"),
        (
            spec("train", {"unrelated": {"v": "1"}}),
            None,
            "variables of 'unrelated' are set, which is no part of this run",
        ),
        (
            spec("train", {"train": {"epoch": "1"}}),
            "train: {epochs: 1}",
            "the variable 'epoch' is set, which the section 'train'",
        ),
        (
            spec("train", {"train": {"lr": "a"}}),
            None,
            "the variable 'lr' is set, which the section 'train' doesn't have",
        ),
        (spec("train", {"train": {"e": "a\0"}}), "train: {e: 1}", "variable 'e': a NUL character"),
        (spec("prepare", environment={"A": "a\0"}), None, "environment variable 'A': a NUL character"),
        (spec("train"), "trian: {a: 1}", ".dstack/variables.yaml:1:13: there is no workflow 'trian'"),
    ],
)
def test_what_is_refused(run: RunSpec, variables: str | None, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        make_plan(ROOT, run, CHAIN, f"variables: {{{variables}}}".encode() if variables else None)


def test_a_later_planner_is_not_imitated() -> None:
    later = RunSpec(**{name: getattr(spec("train"), name) for name in RunSpec.__struct_fields__} | {"planner": 2})
    with pytest.raises(Invalid, match="update dstack"):
        make_plan(ROOT, later, CHAIN, None)


def test_matrices_that_never_agree_are_refused() -> None:
    text = b"""workflows:
- {name: a, commands: [x], matrix: {s: [1, 2]}}
- {name: b, commands: [x], depends-on: [a], matrix: {s: [2, 3]}}
"""
    with pytest.raises(Invalid, match="workflow 'b' depends on 'a', whose matrix has no 's=3'"):
        make_plan(ROOT, spec("b"), text, None)
    assert titles(make_plan(ROOT, spec("b", matrix={"s": ("2",)}), text, None)) == ["a[s=2]", "b[s=2]"]


def matrix_of(count: int) -> str:
    return "[" + ", ".join(map(str, range(count))) + "]"


FIVE_THOUSAND = f"matrix: {{s: {matrix_of(5000)}}}"
NEEDS_ALL = f"depends-on: [a], matrix: {{t: {matrix_of(5000)}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"- {{name: b, commands: [x], matrix: {{s: {matrix_of(101)}, t: {matrix_of(100)}}}}}",
            "this run would have 10100 jobs",
        ),
        (
            "- {name: b, commands: [x], matrix: {" + ", ".join(f"a{n}: {matrix_of(9)}" for n in range(500)) + "}}",
            "more jobs than can be counted",
        ),
        (
            f"- {{name: b, commands: [x], {NEEDS_ALL}}}\n- {{name: a, commands: [x], {FIVE_THOUSAND}}}",
            f"more than {MAX_NEEDS} dependencies between jobs",
        ),
        (f"- {{name: b, commands: [{'x' * 500_000}], matrix: {{s: {matrix_of(10_000)}}}}}", "bytes of jobs"),
        (
            f"- {{name: b, commands: [x], env: {{{', '.join(f'A{n}: {90_000 * chr(120)}' for n in range(6))}}}}}",
            "at most 500000 fit",
        ),
    ],
)
def test_a_small_file_can_not_make_an_endless_plan(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(Invalid, match=message):
        make_plan(ROOT, spec("b"), f"workflows:\n{text}\n".encode(), None)
    assert time.process_time() - start < 5


def test_a_job_too_large_to_be_read_back_is_refused() -> None:
    name = "w" * 63
    matrix = ", ".join(f"{key}: [{', '.join(f'{key * 90}{n}' for n in range(99))}]" for key in "ab")
    text = f"workflows:\n- {{name: {name}, commands: [x], matrix: {{{matrix}}}}}\n"
    text += f"- {{name: b, commands: [x], depends-on: [{name}]}}\n"
    with pytest.raises(Invalid, match=r"the job b has \d+ bytes; at most"):
        make_plan(ROOT, spec("b"), text.encode(), None)


def test_ten_thousand_jobs_are_planned_in_time() -> None:
    text = f"""workflows:
- {{name: a, commands: [x]}}
- {{name: b, commands: [x], depends-on: [a], matrix: {{s: {matrix_of(100)}, t: {matrix_of(99)}}}}}
- {{name: c, commands: [x], depends-on: [b]}}
"""
    start = time.process_time()
    assert len(make_plan(ROOT, spec("c"), text.encode(), None).jobs) == 9902
    assert time.process_time() - start < 3


NAMES = "abcdef"


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Workflows of a random graph without cycles, in random order, with matrices over common names."""
    lines = []
    for place, name in enumerate(NAMES):
        needed = draw(st.lists(st.sampled_from(NAMES[:place]), unique=True, max_size=3)) if place else []
        matrix = draw(st.dictionaries(st.sampled_from("xyz"), st.just("[1, 2]"), max_size=2))
        pairs = ", ".join(f"{key}: {values}" for key, values in matrix.items())
        lines.append(f"- {{name: {name}, commands: [x], depends-on: [{', '.join(needed)}], matrix: {{{pairs}}}}}\n")
    return ("workflows:\n" + "".join(draw(st.permutations(lines)))).encode()


@given(files(), st.sampled_from(NAMES))
def test_a_plan_is_acyclic_ordered_complete_and_the_same_every_time(text: bytes, wanted: str) -> None:
    plan = make_plan(ROOT, spec(wanted), text, None)
    graph = parse_workflows(text)
    by_workflow: dict[str, list[Job]] = {}
    seen: dict[str, Job] = {}
    for planned in plan.jobs:
        assert all(need.job in seen for need in planned.job.needs)
        seen[planned.id] = planned.job
        by_workflow.setdefault(planned.job.workflow, []).append(planned.job)
    assert list(by_workflow) == [workflow.name for workflow in graph.graph(wanted)]
    for name, jobs in by_workflow.items():
        workflow = graph.get(name)
        combinations = itertools.product(*workflow.matrix.values())
        assert [tuple(job.matrix[key] for key in workflow.matrix) for job in jobs] == list(combinations)
        for job in jobs:
            assert {need.job for need in job.needs} == set(agreeing(job, workflow.depends_on, seen))
            assert len({(need.workflow, need.under) for need in job.needs}) == len(job.needs)
    assert make_plan(ROOT, spec(wanted), text, None) == plan


def agreeing(job: Job, needed: tuple[str, ...], seen: dict[str, Job]) -> list[str]:
    return [
        oid
        for oid, other in seen.items()
        if other.workflow in needed
        and all(other.matrix.get(name, value) == value for name, value in job.matrix.items())
    ]


def test_a_need_names_twelve_digits() -> None:
    plan = make_plan(ROOT, spec("train", matrix={"lr": ("a",), "seed": ("1",)}), CHAIN, None)
    assert plan.jobs[1].job.needs == (Need(job=plan.jobs[0].oid[:12], workflow="prepare"),)
