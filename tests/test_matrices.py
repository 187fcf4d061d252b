"""Matrices: which combinations there are with `exclude` and `include`, and which of two workflows agree."""

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.combinations import MAX_JOBS
from dstack.model.errors import Invalid
from dstack.model.job import matrix_key, matrix_of, matrix_text
from dstack.model.planner import make_plan
from dstack.model.workflows import parse_workflows
from tests.test_planner import ROOT, needs, spec, titles

SWEPT = b"""workflows:
- name: a
  commands: [x]
  matrix:
    m: [small, large]
    lr: [1, 2]
    exclude: [{m: large, lr: 1}]
    include: [{lr: 5, m: tiny}, {m: large, lr: 1}]
- {name: b, commands: [x], depends-on: [a], matrix: {m: [tiny, large]}}
- {name: c, commands: [x], depends-on: [a], matrix: {m: [large], lr: [1, 2]}}
- {name: d, commands: [x], depends-on: [a], matrix: {lr: [7]}}
- {name: e, commands: [x], matrix: {include: [{p: 1, q: 2}, {q: 1, p: 2}]}}
- {name: f, commands: [x], depends-on: [e], matrix: {p: [1, 2], exclude: [{p: 1}]}}
"""


def test_exclude_leaves_out_and_include_adds_afterwards() -> None:
    plan = make_plan(ROOT, spec("a"), SWEPT, None)
    made = ["lr=1,m=small", "lr=2,m=small", "lr=2,m=large", "lr=5,m=tiny", "lr=1,m=large"]
    assert titles(plan) == [f"a[{text}]" for text in made]
    assert plan.jobs[3].job.variables == {"m": "tiny", "lr": "5"}


def test_included_combinations_alone_are_a_matrix() -> None:
    assert titles(make_plan(ROOT, spec("e"), SWEPT, None)) == ["e[p=1,q=2]", "e[p=2,q=1]"]
    assert titles(make_plan(ROOT, spec("f"), SWEPT, None)) == ["e[p=2,q=1]", "f[p=2]"]


def test_what_is_included_and_excluded_agrees_as_the_rest() -> None:
    plan = make_plan(ROOT, spec("b"), SWEPT, None)
    assert needs(plan)["b[m=tiny]"] == [("a[lr=5,m=tiny]", "")]
    assert needs(plan)["b[m=large]"] == [("a[lr=2,m=large]", "lr=2,m=large"), ("a[lr=1,m=large]", "lr=1,m=large")]
    assert titles(make_plan(ROOT, spec("c"), SWEPT, None)) == [
        "a[lr=2,m=large]",
        "a[lr=1,m=large]",
        "c[lr=1,m=large]",
        "c[lr=2,m=large]",
    ]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"m": ("tiny",)}, ["a[lr=5,m=tiny]"]),
        ({"lr": ("5", "1")}, ["a[lr=1,m=small]", "a[lr=5,m=tiny]", "a[lr=1,m=large]"]),
    ],
)
def test_values_are_chosen_of_what_is_included_too(chosen: dict[str, tuple[str, ...]], expected: list[str]) -> None:
    assert titles(make_plan(ROOT, spec("a", matrix=chosen), SWEPT, None)) == expected


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("a", {"m": ("tiny",), "lr": ("1",)}, "no combination of the matrix of workflow 'a' is left"),
        ("a", {"m": ("huge",)}, "m of workflow 'a' takes 'small', 'large', 'tiny'; not 'huge'"),
        ("d", {}, "workflow 'd' depends on 'a', whose matrix has no 'lr=7'"),
    ],
)
def test_what_is_refused(name: str, matrix: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        make_plan(ROOT, spec(name, matrix=matrix), SWEPT, None)


def test_a_matrix_that_excludes_everything_is_refused() -> None:
    text = b"workflows: [{name: a, commands: [x], matrix: {m: [1, 2], exclude: [{m: 1}, {m: 2}]}}]"
    with pytest.raises(Invalid, match="no combination of the matrix of workflow 'a' is left: look at `exclude`"):
        make_plan(ROOT, spec("a"), text, None)


def listed(count: int) -> str:
    return "[" + ", ".join(map(str, range(count))) + "]"


def test_a_matrix_may_be_larger_before_what_it_excludes() -> None:
    diagonal = ", ".join(f"{{a: {n}, b: {n}}}" for n in range(100))
    text = f"workflows: [{{name: w, commands: [x], matrix: {{a: {listed(101)}, b: {listed(100)}, exclude: "
    assert len(make_plan(ROOT, spec("w"), f"{text}[{diagonal}, {{a: 100}}]}}}}]".encode(), None).jobs) == 9900
    with pytest.raises(Invalid, match=f"this run would have 10099 jobs, most of them of 'w'; at most {MAX_JOBS}"):
        make_plan(ROOT, spec("w"), f"{text}[{{a: 1, b: 1}}]}}}}]".encode(), None)


def test_no_exclusions_make_an_endless_plan() -> None:
    names = ", ".join(f"n{place}: [0, 1]" for place in range(40))
    text = f"workflows: [{{name: w, commands: [x], matrix: {{{names}, exclude: [{{n0: 0}}]}}}}]"
    with pytest.raises(Invalid, match="1099511627776 jobs"):
        make_plan(ROOT, spec("w"), text.encode(), None)
    many = ", ".join(f"{{n{a}: 0, n{b}: 0}}" for a, b in itertools.combinations(range(7), 2))
    with pytest.raises(Invalid, match="more than 16 different sets of names"):
        parse_workflows(text.replace("[{n0: 0}]", f"[{many}]").encode())


def test_a_large_matrix_is_thinned_in_time() -> None:
    shapes = ", ".join(f"{{a: 1, n{place}: 0}}" for place in range(10))
    lists = ", ".join(f"n{place}: [0]" for place in range(10))
    text = f"workflows: [{{name: w, commands: [x], matrix: {{a: {listed(1000)}, b: {listed(100)}, {lists}, exclude: "
    start = time.process_time()
    with pytest.raises(Invalid, match="this run would have 99900 jobs"):
        make_plan(ROOT, spec("w"), f"{text}[{shapes}]}}}}]".encode(), None)
    assert time.process_time() - start < 5


ENTRIES = st.lists(
    st.dictionaries(st.sampled_from("xy"), st.sampled_from(["1", "2", "3"]), min_size=1),
    max_size=3,
    unique_by=lambda one: tuple(sorted(one.items())),
)


@given(ENTRIES, ENTRIES)
def test_the_combinations_are_those_found_one_by_one(
    excluded: list[dict[str, str]], included: list[dict[str, str]]
) -> None:
    lists = {"x": ["1", "2"], "y": ["1", "3"]}
    out = [one for one in excluded if all(value in lists[name] for name, value in one.items())]
    whole = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    kept = [one for one in whole if not any(entry.items() <= one.items() for entry in out)]
    more = [one for one in included if one.keys() == lists.keys() and one not in kept]
    text = f"workflows: [{{name: a, commands: [x], matrix: {{x: [1, 2], y: [1, 3], exclude: {out}, include: {more}}}}}]"
    expected = [*kept, *more]
    if expected:
        assert [planned.job.matrix for planned in make_plan(ROOT, spec("a"), text.encode(), None).jobs] == expected


@given(st.dictionaries(st.from_regex(r"[a-z][a-z.-]{0,3}", fullmatch=True), st.text("ab=,-", max_size=6), max_size=4))
def test_a_combination_is_read_back_from_its_key(matrix: dict[str, str]) -> None:
    key = matrix_key(matrix)
    assert matrix_of(key) == matrix
    assert matrix_of(matrix_text(matrix)) != matrix or key == matrix_text(matrix), "as runs before have it"


def test_values_that_look_like_other_names_are_told_apart() -> None:
    one, other = {"a": "1,b=2"}, {"a": "1", "b": "2"}
    assert (matrix_key(one), matrix_key(other)) == ('{"a":"1,b=2"}', "a=1,b=2")
    for damaged in ("{", '{"a":1}', "{" * 100_000):
        with pytest.raises(Invalid, match="a matrix key can't be read"):
            matrix_of(damaged)
