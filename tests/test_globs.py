"""Globs of `repo.include`: which files they mean, and what can't be one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.globs import glob_problem, matcher

FILES = ["a.py", "src/a.py", "src/b.csv", "src/x/y/a.py", "src/x/b", "data/1.csv", "data/old/2.csv", "d[1]", "é.txt"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("src", ["src/a.py", "src/b.csv", "src/x/y/a.py", "src/x/b"]),
        ("src/", ["src/a.py", "src/b.csv", "src/x/y/a.py", "src/x/b"]),
        ("./src/x", ["src/x/y/a.py", "src/x/b"]),
        ("*.py", ["a.py"]),
        ("src/*.py", ["src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"]),
        ("**/*.csv", ["src/b.csv", "data/1.csv", "data/old/2.csv"]),
        ("**/x", ["src/x/y/a.py", "src/x/b"]),
        ("src/**", ["src/a.py", "src/b.csv", "src/x/y/a.py", "src/x/b"]),
        ("**", FILES),
        ("*", FILES),
        ("data/?.csv", ["data/1.csv"]),
        ("data/[0-9].csv", ["data/1.csv"]),
        ("data/[!0-9].csv", []),
        ("d[[]1]", ["d[1]"]),
        ("*/*a*.p*", ["src/a.py"]),
        ("?.txt", ["é.txt"]),
        ("src?a.py", []),
        ("src[!x]a.py", []),
        ("nowhere", []),
    ],
)
def test_what_a_glob_means(glob: str, expected: list[str]) -> None:
    assert glob_problem(glob) == ""
    assert [path for path in FILES if matcher([glob])(path)] == expected


def test_several_globs_add_up_and_none_mean_every_file() -> None:
    assert [path for path in FILES if matcher(["*.py", "data"])(path)] == ["a.py", "data/1.csv", "data/old/2.csv"]
    assert all(matcher([])(path) for path in FILES)


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("!src", "no `!` here"),
        ("/src", "from the top of the repository"),
        ("../src", "from the top of the repository"),
        ("~/src", "from the top of the repository"),
        ("a\\*", "in brackets: `[*]`"),
        (".", "1 to 500 characters"),
        ("a\nb", "1 to 500 characters"),
        ("a" * 501, "1 to 500 characters"),
        ("src/**.py", "alone between slashes"),
        ("**/a/**/b/**/c/**/d/**", "at most 4 times"),
        (".git/config", "git's own"),
        ("a[b", "'[' has no closing bracket"),
        ("a[]", "no closing bracket"),
        ("[z-a]", "no set of characters"),
    ],
)
def test_what_can_be_no_glob(glob: str, words: str) -> None:
    assert words in glob_problem(glob)


@given(st.text("ab*?[]!-/.^&~|\\", max_size=14), st.text("ab-/.[", min_size=1, max_size=8))
def test_whatever_is_no_problem_can_be_matched(glob: str, path: str) -> None:
    if not glob_problem(glob):
        matcher([glob])(path)


@given(st.text("ab/.[", min_size=1, max_size=12).filter(lambda path: not glob_problem(path)))
def test_a_plain_path_means_itself_and_what_is_in_it(path: str) -> None:
    plain = "/".join(part for part in path.split("/") if part not in {"", "."})
    assert matcher([path])(plain)
    assert matcher([path])(f"{plain}/more")
    assert not matcher([path])(f"{plain}more")


def test_no_glob_makes_matching_slow() -> None:
    start = time.process_time()
    assert not matcher(["a*" * 200 + "b"])("a" * 255)
    assert not matcher(["**/a/**/a/**/a/**/b"])("a/" * 120 + "a")
    assert time.process_time() - start < 2
