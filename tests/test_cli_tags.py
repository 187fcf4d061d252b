"""`dstack tag`, `untag`, `tags`, and `run --tag`: by calls in this process."""

from pathlib import Path

import pytest

from tests.calls import Desk, ended_run, stored_desk
from tests.repositories import bare, hook, sh


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return stored_desk(tmp_path, capfd)


def tag_refs(at: Desk) -> dict[str, str]:
    return {ref.removeprefix("refs/tags/dstack/"): oid for ref, oid in at.refs().items() if ref.startswith("refs/tags")}


def test_a_tag_names_a_run_moves_and_is_taken_away(at: Desk) -> None:
    first, second = ended_run(at, "hello"), ended_run(at, "hello")
    assert at.dstack("tag", first).out == f"latest is {first}\n"
    assert at.dstack("tag", first).out == f"latest is {first}\n"
    assert at.dstack("tag", second, "latest").out == f"latest is {second}; it was {first} before\n"
    assert at.dstack("tag", second, "v1.0").code == 0
    root = at.dstack("status", second, "--json").json[0]["root"]
    assert tag_refs(at) == {"latest": root, "v1.0": root}
    assert at.dstack("status", second, "--json").json[0]["tags"] == ["latest", "v1.0"]
    listed = at.dstack("tags", "--json").json
    assert [(one["tag"], one["run"], one["status"]) for one in listed] == [
        ("latest", second, "DONE"),
        ("v1.0", second, "DONE"),
    ]
    assert second in at.dstack("tags").out
    assert at.dstack("untag", "v1.0").out == f"v1.0 is no tag any more; it was {second}\n"
    assert tag_refs(at) == {"latest": root}


def test_what_can_not_be_tagged_or_untagged_says_why(at: Desk) -> None:
    assert "There are no tags" in at.dstack("tags").err
    name = ended_run(at, "sad")
    assert at.dstack("tag", "nobody").code == 1
    assert "can't be a tag" in at.dstack("tag", name, "a b").err
    assert "FAILED: others can depend on its artifacts only when it is DONE" in at.dstack("tag", name).err
    answer = at.dstack("untag", "latset")
    assert (answer.code, "did you mean 'latest'" in answer.err) == (1, True)
    assert at.dstack("tag", "x", "y", "--from", "data").code == 2


def test_a_tag_that_is_not_of_a_run_is_listed_with_its_fault_and_can_be_taken_away(at: Desk) -> None:
    sh(at.folder, "push", "--quiet", "origin", "HEAD:refs/tags/dstack/odd")
    (line,) = at.dstack("tags", "--json").json
    assert (line["tag"], line["run"], "is no run's" in line["problem"]) == ("odd", None, True)
    assert "nothing of dstack's" in at.dstack("untag", "odd").out
    assert tag_refs(at) == {}


def test_an_annotated_tag_names_the_run_behind_it(at: Desk) -> None:
    name = ended_run(at, "hello")
    root = at.dstack("status", name, "--json").json[0]["root"]
    sh(at.folder, "fetch", "--quiet", "origin", f"refs/heads/dstack/runs/{name}")
    sh(at.folder, "tag", "-a", "-m", "good", "good", root)
    sh(at.folder, "push", "--quiet", "origin", "refs/tags/good:refs/tags/dstack/good")
    (line,) = at.dstack("tags", "--json").json
    assert (line["tag"], line["run"], line["root"]) == ("good", name, root)


def test_files_of_this_machine_are_stored_under_a_tag(at: Desk, tmp_path: Path) -> None:
    at.write("data/raw/one.csv", "1,2\n")
    answer = at.dstack("tag", "raw", "--from", "data/raw")
    assert answer.out == "raw is data/raw (4 B)\n", answer
    (line,) = at.dstack("tags", "--json").json
    assert (line["tag"], line["folder"], line["run"]) == ("raw", "data/raw", None)
    text = sh(at.remote, "show", "refs/tags/dstack/raw:tag.yaml")
    assert '"folder":"data/raw"' in text
    assert sh(at.remote, "rev-list", "--count", "refs/tags/dstack/raw").strip() == "1"
    assert list((tmp_path / "store").glob("*/manifests/*"))


@pytest.mark.parametrize(
    ("source", "why"), [(".", "whole repository"), ("missing", "does not exist"), ("..", "outside")]
)
def test_a_folder_that_can_not_be_stored_says_why(at: Desk, source: str, why: str) -> None:
    before = at.refs()
    answer = at.dstack("tag", "raw", "--from", source)
    assert (answer.code, why in answer.err) == (1, True), answer
    assert at.refs() == before


def test_a_run_gets_its_tag_when_it_is_done_and_only_then(at: Desk) -> None:
    name = ended_run(at, "hello", "--tag", "best")
    root = at.dstack("status", name, "--json").json[0]["root"]
    assert tag_refs(at) == {"best": root}
    ended_run(at, "sad", "-t", "worst")
    assert tag_refs(at) == {"best": root}
    assert "can't be a tag" in at.dstack("run", "hello", "-d", "-t", "a..b").err


def test_a_remote_that_refuses_tags_is_explained(at: Desk, tmp_path: Path) -> None:
    name = ended_run(at, "hello")
    hook(at.remote, "update", 'case "$1" in refs/tags/*) echo "tags are protected"; exit 1;; esac')
    answer = at.dstack("tag", name)
    assert (answer.code, "tags are protected" in answer.err) == (1, True)
    assert bare(tmp_path / "other.git").exists()
