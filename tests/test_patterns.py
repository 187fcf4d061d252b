"""Patterns of `on`: what they choose, what takes back, and that none of them can be slow."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.globs import matcher
from dstack.model.patterns import chosen, chosen_path, pattern_problem
from dstack.model.triggers import PullRequest, Push


@pytest.mark.parametrize(
    ("patterns", "taken", "left"),
    [
        (("main",), ["main"], ["main2", "a/main", "main/a", "Main", ""]),
        (("*",), ["main", "v1.0"], ["feature/x"]),
        (("**",), ["main", "feature/x", "a/b/c"], []),
        (("feature/*",), ["feature/x"], ["feature", "feature/x/y"]),
        (("feature/**",), ["feature/x", "feature/x/y"], ["feature", "features/x"]),
        (("**/wip",), ["wip", "a/wip", "a/b/wip"], ["wip/a", "a-wip"]),
        (("v[0-9].?",), ["v1.x"], ["v10.x", "v1."]),
        (("**", "!wip/**"), ["main"], ["wip/x"]),
        (("**", "!wip/**", "wip/keep"), ["wip/keep", "main"], ["wip/x"]),
        (("!main", "**"), ["main"], []),
        (("a", "!a", "a"), ["a"], ["b"]),
        (("release/*", "!release/*-rc"), ["release/1"], ["release/1-rc", "main"]),
    ],
)
def test_the_last_pattern_that_matches_a_whole_name_decides(
    patterns: tuple[str, ...], taken: list[str], left: list[str]
) -> None:
    assert [name for name in [*taken, *left] if chosen(patterns, name)] == taken


@pytest.mark.parametrize(
    ("patterns", "taken", "left"),
    [
        (("src",), ["src", "src/a", "src/a/b.py"], ["srcs", "a/src"]),
        (("**/*.py",), ["a.py", "src/a.py"], ["a.pyc"]),
        (("src", "!src/**/*.md"), ["src/a.py"], ["src/a.md", "src/b/c.md"]),
        (("**", "!docs"), ["a", "src/docs"], ["docs/a", "docs"]),
    ],
)
def test_a_path_is_also_matched_by_a_folder_it_lies_in(
    patterns: tuple[str, ...], taken: list[str], left: list[str]
) -> None:
    assert [path for path in [*taken, *left] if chosen_path(patterns, path)] == taken


NAMES = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "?"]), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.tuples(st.booleans(), NAMES), min_size=1, max_size=6)


@given(PATTERNS, st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join))
def test_a_list_means_what_going_through_it_one_by_one_means(listed: list[tuple[bool, str]], name: str) -> None:
    patterns = tuple(pattern if taken else f"!{pattern}" for taken, pattern in listed if not pattern_problem(pattern))
    found = False
    for pattern in patterns:
        if matcher([pattern.removeprefix("!")], whole=True)(name):
            found = not pattern.startswith("!")
    assert chosen(patterns, name) is found


def test_many_patterns_and_paths_take_no_time() -> None:
    patterns = tuple(f"{'!' if n % 2 else ''}**/a*a*a*a*{n}/**/*b*b*c" for n in range(100))
    paths = ["a" * 200 + f"/{n}/" + "b" * 200 for n in range(100)]
    start = time.process_time()
    assert not any(chosen_path(patterns, path) for path in paths)
    assert time.process_time() - start < 10


def test_what_push_and_pull_request_mean() -> None:
    assert Push().wants_branch("a/b")
    assert not Push().wants_tag("v1")
    assert not Push(branches=("main",)).wants_tag("main")
    assert not Push(tags=("v*",)).wants_branch("v1")
    both = Push(branches=("main",), tags=("v*",))
    assert (both.wants_branch("main"), both.wants_tag("v1"), both.wants_branch("v1")) == (True, True, False)
    assert PullRequest().wants_base("main")
    assert not PullRequest(branches=("main",)).wants_base("other")
