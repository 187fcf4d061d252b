"""`dstack run --from RUN`: its snapshot and variables again, under what is given now."""

from pathlib import Path

import pytest

from cli.run_from import asked_source, with_workflow
from dstack.model.again import chosen_again
from dstack.model.choices import Choices
from dstack.model.runspec import RunSpec
from dstack.model.variables import parse_variables
from dstack.model.workflows import parse_workflows
from tests.calls import VARIABLES, WORKFLOWS, Desk, desk
from tests.repositories import sh, spec

DEFINED = parse_workflows(WORKFLOWS.encode())
VALUES = parse_variables(VARIABLES.encode(), DEFINED)


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = desk(tmp_path, capfd)
    answer = made.dstack("run", "train", "-d", "--name", "first", "-y", "--rows", "7", "--lr", "0.2")
    assert answer.code == 0, answer
    return made


def then(**values: object) -> RunSpec:
    base = spec("first")
    known = {name: getattr(base, name) for name in base.__struct_fields__}
    return RunSpec(**{**known, "workflow": "train", **values})


@pytest.mark.parametrize(
    ("words", "source", "expected"),
    [
        (["--from", "r"], "r", ["train", "--from", "r"]),
        (["--from=r", "-d"], "r", ["train", "--from=r", "-d"]),
        (["--from", "r", "--rows", "7"], "r", ["train", "--from", "r", "--rows", "7"]),
        (["-d", "--from", "r", "hello", "--who", "me"], "r", ["-d", "--from", "r", "hello", "--who", "me"]),
        (["hello", "--from", "r"], "r", ["hello", "--from", "r"]),
        (["--name", "x", "--from", "r", "--help"], "r", ["train", "--name", "x", "--from", "r", "--help"]),
        (["--from"], None, ["train", "--from"]),
        (["--", "--from", "r"], None, ["train", "--", "--from", "r"]),
    ],
)
def test_a_workflow_is_named_or_that_of_the_run_is_meant(
    words: list[str], source: str | None, expected: list[str]
) -> None:
    assert asked_source(words) == source
    assert with_workflow(words, "train") == expected


def test_what_is_given_now_comes_before_what_was_given_then() -> None:
    before = then(
        variables={"prepare": {"rows": "7"}, "global": {"batch_size": "9"}, "hello": {"who": "x"}, "gone": {"a": "b"}},
        matrix={"lr": ("0.2",)},
        sweeps={"prepare": {"other": ("1", "2")}},
    )
    found = chosen_again(Choices(variables={"prepare": {"rows": "8"}}), before, "train", DEFINED, VALUES)
    assert found.variables == {"prepare": {"rows": "8"}, "global": {"batch_size": "9"}}
    assert found.matrix == {"lr": ("0.2",)}
    assert found.sweeps == {"prepare": {"other": ("1", "2")}}
    again = chosen_again(Choices(matrix={"lr": ("0.1",)}), before, "train", DEFINED, VALUES)
    assert again.matrix == {"lr": ("0.1",)}
    other = chosen_again(Choices(), before, "hello", DEFINED, VALUES)
    assert (other.variables, other.matrix, other.sweeps) == (
        {"global": {"batch_size": "9"}, "hello": {"who": "x"}},
        {},
        {},
    )


def test_what_was_set_can_be_swept_and_the_other_way_round() -> None:
    was_set = then(variables={"prepare": {"rows": "7"}})
    swept = chosen_again(Choices(sweeps={"prepare": {"rows": ("1", "2")}}), was_set, "train", DEFINED, VALUES)
    assert (swept.variables, swept.sweeps) == ({}, {"prepare": {"rows": ("1", "2")}})
    was_swept = then(sweeps={"prepare": {"rows": ("1", "2")}})
    now_set = chosen_again(Choices(variables={"prepare": {"rows": "7"}}), was_swept, "train", DEFINED, VALUES)
    assert (now_set.variables, now_set.sweeps) == ({"prepare": {"rows": "7"}}, {})


def test_the_same_runs_again_whatever_the_work_tree_is(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", "workflows:\n- name: other\n  commands: echo other\n")
    at.write(".dstack/variables.yaml", "variables: {}\n")
    at.write("train.py", "another\n")
    answer = at.dstack("run", "--from", "first", "-d", "--json", "--name", "second")
    assert answer.code == 0, answer
    found = at.dstack("diff", "first", "second", "--json").json
    assert (found["code"], found["variables"], found["definitions"], found["jobs"]) == ([], [], [], [])
    assert found["before"]["snapshot"] == found["after"]["snapshot"] == answer.json["snapshot"]
    text = sh(at.remote, "show", "refs/heads/dstack/runs/second:run.yaml")
    root = at.refs()["refs/heads/dstack/runs/first"]
    assert f'source: "first.{root[:12]}"' in text or f"source: first.{root[:12]}" in text
    changed = at.dstack("run", "-d", "--from", "first", "--rows", "9", "--json").json
    assert changed["jobs"][0]["variables"]["rows"] == "9"
    assert [job["matrix"] for job in changed["jobs"]] == [{}, {"lr": "0.2"}]
    one = at.dstack("run", "--from", "fir", "prepare", "-d", "--json").json
    assert [(job["workflow"], job["variables"]["rows"]) for job in one["jobs"]] == [("prepare", "7")]


def test_what_can_not_be_run_again_says_why(at: Desk) -> None:
    before = at.refs()
    assert "did you mean 'first'" in at.dstack("run", "--from", "frist").err
    assert "leave out --only-committed" in at.dstack("run", "--from", "first", "--only-committed", "-d").err
    assert "has no workflow 'trian' (did you mean 'train'?)" in at.dstack("run", "--from", "first", "trian", "-d").err
    assert "--rows" in at.dstack("run", "--from", "first", "--help").out
    shown = at.dstack("run", "--from", "first", "--dry-run")
    assert (shown.code, "the code of first, as it was" in shown.err) == (0, True)
    assert at.refs() == before


def test_what_the_submitter_had_in_the_environment_then_counts(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "workflows:\n- name: hello\n  commands: echo $WHO\n  env: [WHO, NEW]\n"
    at.write(".dstack/workflows.yaml", text)
    at.write(".dstack/variables.yaml", "variables: {}\n")
    monkeypatch.setenv("WHO", "then")
    assert at.dstack("run", "hello", "-d", "--name", "one").code == 0
    monkeypatch.setenv("WHO", "now")
    monkeypatch.setenv("NEW", "new")
    assert at.dstack("run", "--from", "one", "-d", "--name", "two").code == 0
    stored = sh(at.remote, "show", "refs/heads/dstack/runs/two:run.yaml")
    assert ("then" in stored, "now" in stored, "NEW" in stored) == (True, False, True)


def test_it_ends_well_where_nobody_has_the_code_at_hand(at: Desk, tmp_path: Path) -> None:
    at.dstack("run", "--from", "first", "--local", "-y", "--name", "second")
    assert at.dstack("status", "second", "--json").json[0]["status"] == "DONE"
    assert at.dstack("checkout", "second", str(tmp_path / "code")).code == 0
