"""`dstack run`'s flags: help of a graph's variables, sections, and `--matrix`."""

from pathlib import Path

import pytest

from tests.calls import Desk, desk

WORKFLOWS = """\
workflows:
- {name: prepare, help: Make the data, commands: [x], matrix: {part: [a, b]}}
- {name: train, help: Train a model, commands: [x], depends-on: [prepare]}
"""
VARIABLES = """\
variables:
  global: {memory: 12GB}
  prepare: {seed: 1, rows: 5}
  train: {learning_rate: 0.00002, seed: 7, tag: x}
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    at = desk(tmp_path, capfd)
    at.write(".dstack/workflows.yaml", WORKFLOWS)
    at.write(".dstack/variables.yaml", VARIABLES)
    return at


def jobs(at: Desk, *args: str) -> list[dict[str, object]]:
    answer = at.dstack("run", "train", "--dry-run", "--json", *args)
    assert answer.code == 0, answer.err
    found: list[dict[str, object]] = answer.json["jobs"]
    return found


def test_help_lists_what_the_whole_graph_can_be_given(at: Desk) -> None:
    lines = [" ".join(line.split()) for line in at.dstack("run", "train", "--help").out.splitlines()]
    start = lines.index("Variables:")
    assert lines[start + 1 : lines.index("Options:")] == [
        "--learning_rate VALUE default: 0.00002",
        "--seed VALUE default: 7",
        "--train.tag VALUE default: x",
        "--memory VALUE default: 12GB",
        "",
        "Variables of prepare:",
        "--part, --prepare.part VALUE one of a, b",
        "--prepare.seed VALUE default: 1",
        "--rows, --prepare.rows VALUE default: 5",
        "",
    ]
    assert "dstack run train --learning_rate 0.00002" in lines


def test_what_there_is_not_is_named_as_it_was_typed(at: Desk) -> None:
    answer = at.dstack("run", "train", "--dry_runn", "--prepare.seed", "3")
    assert (answer.code, "No such option '--dry_runn'" in answer.err) == (2, True), answer.err
    answer = at.dstack("run", "train", "--learning_ratio=1")
    assert (answer.code, "learning_ratio" in answer.err) == (1, True), answer.err


def test_a_section_says_whose_variable_is_meant(at: Desk) -> None:
    first, _, train = jobs(at, "--prepare.seed", "3", "--learning-rate", "1e-2", "--train.tag", "best", "--rows", "8")
    assert first["variables"] == {"memory": "12GB", "seed": "3", "rows": "8", "part": "a"}
    assert train["variables"] == {"memory": "12GB", "seed": "7", "learning_rate": "1e-2", "tag": "best"}
    assert [job["variables"]["seed"] for job in jobs(at, "--train.seed", "9")] == ["1", "1", "9"]  # type: ignore[index]


def test_a_sweep_from_the_command_line(at: Desk) -> None:
    found = jobs(at, "--matrix", "learning-rate=0.1,1e-2", "--prepare.part", "b", "--matrix", "rows=5,6")
    assert [job["matrix"] for job in found] == [
        {"part": "b", "rows": "5"},
        {"part": "b", "rows": "6"},
        {"learning_rate": "0.1", "rows": "5"},
        {"learning_rate": "1e-2", "rows": "5"},
        {"learning_rate": "0.1", "rows": "6"},
        {"learning_rate": "1e-2", "rows": "6"},
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--prepare.sed", "3"), "has no variable 'prepare.sed' (did you mean 'prepare.seed'?)"),
        (("--matrix", "lerning-rate=1"), "(did you mean 'learning_rate'?)"),
        (("--matrix", "rows"), "'rows' has no =: write NAME=VALUE"),
        (("--rows", "5", "--matrix", "rows=5,6"), "rows is set by a flag of its own and by --matrix"),
        (("--part", "c"), "part of workflow 'prepare' takes 'a', 'b'; not 'c'"),
    ],
)
def test_what_is_refused(at: Desk, args: tuple[str, ...], words: str) -> None:
    answer = at.dstack("run", "train", "--dry-run", *args)
    assert answer.code in {1, 2}
    assert words in answer.err
