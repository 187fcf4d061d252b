"""`dstack diff` and `dstack checkout`: what differs between runs, and their code in a folder."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from cli.diff import definition_lines
from dstack.ledger.codediff import bring, changes
from dstack.model.comparing import (
    Changed,
    Compared,
    MetricChange,
    OneSided,
    compare_jobs,
    compare_runs,
    definition,
)
from dstack.model.errors import Failed
from dstack.model.job import Job, Need, Resources, Tagged
from dstack.model.refs import RunKey
from tests.calls import WORKFLOWS, Desk, desk
from tests.repositories import place, sh

TRAIN = Job(
    root="1" * 40,
    workflow="train",
    commands=("python prepare.py", "python train.py"),
    matrix={"lr": "1"},
    variables={"lr": "1", "rows": "5"},
    needs=(Need(job="a" * 12, workflow="prepare"), Need(job="b" * 12, workflow="prepare")),
)


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def test_a_run_made_again_differs_in_nothing_though_its_jobs_have_other_ids() -> None:
    again = replace(TRAIN, root="2" * 40, needs=(Need(job="c" * 12, workflow="prepare"),))
    found = compare_runs([Compared(job=TRAIN)], [Compared(job=again)])
    assert (found.variables, found.definitions, found.metrics, found.jobs) == ((), (), (), ())


def test_jobs_of_two_runs_correspond_by_workflow_and_matrix() -> None:
    other = replace(TRAIN, variables={"lr": "1", "rows": "7"}, resources=Resources(cpu=2))
    two = replace(TRAIN, matrix={"lr": "2"}, variables={"lr": "2", "rows": "5"})
    three = replace(other, matrix={"lr": "3"}, variables={"lr": "3", "rows": "7"})
    before = [Compared(job=TRAIN, metrics={"loss": 1, "same": 3}), Compared(job=two)]
    after = [Compared(job=other, metrics={"loss": 2, "same": 3, "new": "x"}), Compared(job=three)]
    found = compare_runs(before, after)
    assert found.variables == (Changed(workflow="train", name="rows", before="5", after="7"),)
    assert [(one.name, one.before, one.after) for one in found.definitions] == [("resources", None, '{"cpu": 2}')]
    assert found.metrics == (
        MetricChange(job="train[lr=1]", name="loss", before=1, after=2),
        MetricChange(job="train[lr=1]", name="new", before=None, after="x"),
    )
    assert found.jobs == (OneSided(job="train[lr=2]", side="before"), OneSided(job="train[lr=3]", side="after"))


def test_two_jobs_of_one_sweep_differ_in_their_matrix() -> None:
    two = replace(TRAIN, matrix={"lr": "2"}, variables={"lr": "2", "rows": "5"})
    found = compare_jobs(Compared(job=TRAIN, metrics={"loss": float("nan")}), Compared(job=two, metrics={"loss": 1}))
    assert found.variables == (Changed(workflow="train", name="lr", before="1", after="2"),)
    assert len(found.metrics) == 1
    other = compare_jobs(Compared(job=TRAIN), Compared(job=replace(TRAIN, workflow="test")))
    assert [one.name for one in other.definitions] == ["name"]


def test_a_definition_reads_as_in_the_file() -> None:
    tagged = replace(TRAIN, tagged=(Tagged(tag="latest", workflow="data", manifest="f" * 64),), include=("src/**",))
    assert definition(tagged) == {
        "commands": "python prepare.py\npython train.py",
        "depends-on": "prepare\ndata:latest (ffffffffffff)",
        "repo.include": "src/**",
    }


def test_of_a_definition_only_the_lines_that_differ_are_shown() -> None:
    changes = [Changed(workflow="train", name="commands", before="a\nb\nc\nd\ne", after="a\nb\nc\nd\nf")]
    assert list(definition_lines(changes)) == ["train", "  commands", "     d", "-    e", "+    f"]


def three_runs(at: Desk) -> None:
    """`one` as it stands, `two` with other code, variables and a definition; `two` is a tree nobody has committed."""
    assert (answer := at.dstack("run", "train", "-d", "--name", "one", "-y")).code == 0, answer
    at.write("train.py", "print('other')\n")
    at.write("binary", "\0\1")
    at.write(".dstack/workflows.yaml", WORKFLOWS.replace("[0.1, 0.2]", "[0.1, 0.3]").replace("wc -l", "wc -c"))
    assert (answer := at.dstack("run", "train", "-d", "--name", "two", "-y", "--rows", "7")).code == 0, answer


def test_two_runs_differ_in_code_variables_and_definitions(at: Desk) -> None:
    three_runs(at)
    found = at.dstack("diff", "one", "two", "--json").json
    assert [(one["file"], one["added"]) for one in found["code"]] == [
        (".dstack/workflows.yaml", 2),
        ("binary", None),
        ("train.py", 1),
    ]
    assert found["variables"] == [{"workflow": "prepare", "name": "rows", "before": "5", "after": "7"}]
    assert [(one["workflow"], one["name"]) for one in found["definitions"]] == [("train", "commands")]
    assert [(one["job"], one["side"]) for one in found["jobs"]] == [
        ("train[lr=0.2]", "before"),
        ("train[lr=0.3]", "after"),
    ]
    assert (found["before"]["run"], found["after"]["run"]) == ("one", "two")
    shown = at.dstack("diff", "one", "two").out
    assert shown.startswith("one → two\n\nCode\n")
    assert "train.py" in shown
    assert "3 files changed" in shown
    assert "-    wc -l < data/rows.txt > models/$lr.txt" in shown
    assert "Only in two\ntrain[lr=0.3]" in shown
    assert "+print('other')" in at.dstack("diff", "one", "two", "-p").out
    assert "\nThe same: code, variables, definitions.\n" in at.dstack("diff", "two", "two").err


def test_a_run_is_compared_with_what_would_run_now(at: Desk) -> None:
    three_runs(at)
    before = at.refs()
    found = at.dstack("diff", "two", "--json").json
    assert (found["code"], found["definitions"], found["jobs"]) == ([], [], [])
    assert found["variables"] == [{"workflow": "prepare", "name": "rows", "before": "7", "after": "5"}]
    assert found["after"]["run"] is None
    at.write("train.py", "print('later')\n")
    assert "two → your work tree" in at.dstack("diff", "two").out
    assert [one["file"] for one in at.dstack("diff", "two", "--json").json["code"]] == ["train.py"]
    assert at.refs() == before


def test_jobs_are_compared_too(at: Desk) -> None:
    three_runs(at)
    jobs = {
        (name, job["matrix"].get("lr")): job["job"]
        for name in ("one", "two")
        for job in at.dstack("status", name, "--json").json[0]["jobs"]
    }
    found = at.dstack("diff", jobs["one", "0.1"], jobs["one", "0.2"], "--json").json
    assert found["variables"] == [{"workflow": "train", "name": "lr", "before": "0.1", "after": "0.2"}]
    assert (found["code"], found["before"]["job"]) == ([], jobs["one", "0.1"])
    assert at.dstack("diff", jobs["one", "0.1"], "two", "--json").json["variables"] == []
    answer = at.dstack("diff", jobs["one", "0.2"], "two")
    assert (answer.code, "two has no job train[lr=0.2] to compare with" in answer.err) == (1, True)


def test_a_run_of_somebody_else_is_fetched_at_need(at: Desk, tmp_path: Path) -> None:
    three_runs(at)
    sh(tmp_path, "clone", "--quiet", at.remote.as_uri(), "other")
    there = place(tmp_path / "other", tmp_path / "cache", fetching=True)
    head = there.code.head
    ref, snapshot = next((ref, oid) for ref, oid in at.refs().items() if "snapshots/two." in ref)
    key = RunKey.of("two", at.refs()["refs/heads/dstack/runs/two"])
    bring(there.cache, there.code, key, snapshot)
    assert [one.file for one in changes(there.cache, head, snapshot)][-1] == "train.py"
    # The history was there already: only what is new has come.
    counted = dict(line.split(": ") for line in sh(there.cache.path, "count-objects", "-v").splitlines())
    assert 0 < int(counted["count"]) + int(counted["in-pack"]) <= 6
    again = place(tmp_path / "other", tmp_path / "another cache", fetching=True)
    sh(at.remote, "update-ref", "-d", ref)
    with pytest.raises(Failed, match="the code of run two is not on the state remote any more"):
        bring(again.cache, again.code, key, snapshot)
    sh(at.remote, "update-ref", ref, head)
    with pytest.raises(Failed, match="was replaced"):
        bring(again.cache, again.code, key, snapshot)
    at.remote.rename(tmp_path / "away")
    with pytest.raises(Failed, match="there is no such repository"):
        bring(again.cache, again.code, key, snapshot)


def test_the_code_of_a_run_stands_in_a_repository_of_its_own(at: Desk, tmp_path: Path) -> None:
    three_runs(at)
    there = tmp_path / "look here"
    answer = at.dstack("checkout", "two", str(there))
    assert answer.code == 0, answer
    assert answer.out.startswith(f"{there}: the code of two (")
    assert (there / "train.py").read_text() == "print('other')\n"
    assert sh(there, "status", "--porcelain", "--branch") == "## two"
    subjects = sh(there, "log", "--format=%s").splitlines()
    assert (subjects[0].startswith("The work tree at"), subjects[1:]) == (True, ["workflows", "begin"])
    assert sh(there, "remote", "get-url", "origin") == str(at.remote)
    assert not (there / ".git/objects/info/alternates").exists()
    shutil.rmtree(at.folder)
    assert sh(there, "fsck", "--full") is not None


def test_nothing_of_the_user_is_overwritten(at: Desk, tmp_path: Path) -> None:
    three_runs(at)
    there = tmp_path / "full"
    there.mkdir()
    assert at.dstack("checkout", "one", str(there)).code == 0
    before = sh(there, "rev-parse", "HEAD")
    answer = at.dstack("checkout", "two", str(there))
    assert (answer.code, "is not empty" in answer.err) == (1, True)
    assert sh(there, "rev-parse", "HEAD") == before
    (tmp_path / "file").touch()
    assert "no folder" in at.dstack("checkout", "two", str(tmp_path / "file")).err
    assert at.dstack("checkout", "twoo", str(tmp_path / "new")).code == 1
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_submodules_and_large_files_are_explained(at: Desk, tmp_path: Path) -> None:
    at.write(".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = ../x\n')
    at.write("big.bin", f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 5\n")
    assert (answer := at.dstack("run", "hello", "-d", "--name", "one", "-y")).code == 0, answer
    answer = at.dstack("checkout", "one", str(tmp_path / "new"))
    assert "submodule update --init` fills them" in answer.err
    assert "1 large file is in git LFS" in answer.err
