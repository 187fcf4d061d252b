"""`dstack prune`: what leaves and what stays, on a repository with real runs, a store, and an archive."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.calls import Desk, ended_run, stored_desk
from tests.repositories import sh
from tests.terminal import terminal
from tests.test_cli_archived import archive_all

WORKFLOWS = """\
workflows:
- name: train
  commands:
  - mkdir -p out
  - echo model of $lr | tee out/model
  artifacts: [out]
"""
DAY = timedelta(days=1).total_seconds()


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = stored_desk(tmp_path, capfd)
    made.write(".dstack/workflows.yaml", WORKFLOWS)
    made.write(".dstack/variables.yaml", "variables:\n  train: {lr: 0.1}\n")
    return made


def objects(at: Desk, kind: str = "objects") -> list[str]:
    return sorted(path.name for path in (at.folder.parent / "store").glob(f"*/{kind}/**/*") if path.is_file())


def older(at: Desk, days: float) -> None:
    """Let the store be so many days older."""
    for path in (at.folder.parent / "store").rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * DAY
            os.utime(path, (when, when))


def prune(at: Desk, *options: str) -> dict[str, Any]:
    answer = at.dstack("prune", "--older-than", "0s", "-y", "--json", *options)
    assert answer.code == 0, answer
    found = answer.json
    assert isinstance(found, dict)
    return found


def test_runs_are_freed_condemned_and_deleted_a_day_later_and_their_logs_stay(at: Desk) -> None:
    name = ended_run(at, "train", "--lr", "0.1")
    kept = ended_run(at, "train", "--lr", "0.2")
    assert at.dstack("tag", kept, "v1").code == 0
    log = at.dstack("logs", name).out
    older(at, 8)
    before = objects(at)
    dry = at.dstack("prune", "--older-than", "0s", "--dry-run")
    assert name in dry.out
    assert kept not in dry.out
    assert at.dstack("prune", "--older-than", "0s").code == 1  # nobody is there to say yes
    assert f"refs/heads/dstack/runs/{name}" in at.refs()
    first = prune(at)
    assert first["runs"] == [name]
    assert objects(at) == before
    assert f"refs/heads/dstack/runs/{name}" not in at.refs()
    older(at, 1.5)
    second = prune(at)
    assert second["runs"] == []
    assert second["deleted"] == first["condemned"]
    assert len(objects(at)) < len(before)
    assert at.dstack("logs", name).out == log
    assert at.dstack("artifacts", kept).code == 0
    assert at.dstack("artifacts", name).code == 1
    assert "Nothing can be freed" in at.dstack("prune", "-y").out


def test_archived_runs_keep_their_artifacts_until_they_are_freed(at: Desk) -> None:
    name = ended_run(at, "train")
    archive_all(at)
    older(at, 8)
    assert prune(at, "--older-than", "1d")["condemned"] == {"objects": 0, "bytes": 0}
    assert prune(at)["runs"] == [name]
    older(at, 1.5)
    assert prune(at)["deleted"] != {"objects": 0, "bytes": 0}
    assert name in at.dstack("status", "--all").out


def test_a_tag_or_a_run_between_the_phases_keeps_what_was_condemned(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged, again = ended_run(at, "train"), ended_run(at, "train", "--lr", "0.2")
    older(at, 8)
    with monkeypatch.context() as other:
        other.setenv("GIT_AUTHOR_EMAIL", "somebody@example.org")
        assert prune(at)["runs"] == []
        assert sorted(prune(at, "--everyone")["runs"]) == sorted([tagged, again])
    before = objects(at)
    assert "stays from now on" in at.dstack("tag", tagged, "rescued").err
    new = ended_run(at, "train", "--lr", "0.2")
    (line,) = at.dstack("status", new, "--json").json
    assert line["jobs"][0]["reused_from"] is None
    older(at, 1.5)
    prune(at, "--older-than", "1d")
    assert objects(at) == before
    for name in (tagged, new, again):
        assert at.dstack("artifacts", name).code == 0


def test_files_stored_under_a_tag_stay_as_long_as_it_does(at: Desk) -> None:
    at.write("data/numbers.txt", "1 2 3")
    assert at.dstack("tag", "numbers", "--from", "data").code == 0
    for days in (8, 1.5, 1.5):
        older(at, days)
        prune(at)
    assert len(objects(at)) == 1
    assert at.dstack("untag", "numbers").code == 0
    for days in (0, 1.5):
        older(at, days)
        prune(at)
    assert objects(at) == []


def test_a_run_is_purged_from_remote_archive_and_store(at: Desk) -> None:
    name = ended_run(at, "train")
    other = ended_run(at, "train", "--lr", "0.2")
    assert at.dstack("tag", name, "v1").code == 0
    refused = at.dstack("prune", name, "--purge", "-y")
    assert refused.code == 1
    assert "dstack untag v1" in refused.err
    assert at.dstack("prune", name[:-1], "--purge", "--force", "-y").code == 1
    assert at.dstack("prune", name, "--purge", "--force").code == 1  # nobody is there to say yes
    assert at.dstack("prune", name, "--purge", "--force", "--dry-run").code == 0
    assert any(name in ref for ref in at.refs())
    with terminal(at.folder, "prune", name, "--purge", "--force") as shown:
        shown.expect("It can't be had back. [y/N]")
        shown.press("n\n")
        shown.expect("nothing was changed")
        assert shown.end() == 1
    assert at.dstack("status", name).code == 0
    done = at.dstack("prune", name, "--purge", "--force", "-y", "--json")
    assert done.code == 0, done
    assert str(done.json["purged"]).startswith(f"{name}.")
    assert done.json["deleted"]["objects"] > 0
    assert not any(f"{name}." in ref or ref.endswith(f"/{name}") or "tags/dstack" in ref for ref in at.refs())
    logs = (at.folder.parent / "store").glob(f"*/logs/{name}.*/*/*/*")
    assert not list(logs)
    assert at.dstack("logs", name).code == 1
    assert at.dstack("logs", other).code == 0
    assert at.dstack("prune", name, "--purge", "-y").code == 1
    archive_all(at)
    assert at.dstack("prune", other, "--purge", "-y").code == 0
    assert at.dstack("status", "--all", "--json").json == []
    assert not any("dstack/archive" in ref for ref in at.refs())


def test_a_run_that_has_not_ended_is_not_purged_and_says_how(at: Desk) -> None:
    answer = at.dstack("run", "train", "-d", "--json", "-y")
    name = answer.json["run"]
    refused = at.dstack("prune", name, "--purge", "-y")
    assert refused.code == 1
    assert f"dstack stop {name}" in refused.err


def test_a_store_that_another_remote_uses_is_not_freed_unless_one_insists(at: Desk) -> None:
    """As after a copy of the state remote, or where the wrong one is set: what nobody here mentions, others need."""
    theirs = ended_run(at, "train")
    mine = ended_run(at, "train", "--lr", "0.2")
    key = next(ref for ref in at.refs() if ref.startswith(f"refs/dstack/snapshots/{theirs}.")).rpartition("/")[2]
    for ref in at.refs():
        if theirs in ref:
            sh(at.remote, "update-ref", "-d", ref)
    older(at, 8)
    before = objects(at)
    dry = at.dstack("prune", "--dry-run")
    assert key in dry.out
    assert "--unknown" in dry.out
    refused = at.dstack("prune", "--older-than", "0s", "-y")
    assert refused.code == 1
    assert key in refused.err
    assert f"refs/heads/dstack/runs/{mine}" in at.refs(), "nothing at all was done"
    assert prune(at, "--unknown")["unknown"] == [key]
    older(at, 1.5)
    assert at.dstack("prune", "-y").code == 1, "nor is anything deleted that was condemned"
    prune(at, "--unknown")
    assert len(objects(at)) < len(before)
    assert prune(at)["unknown"] == []


def test_a_name_and_purge_belong_together(at: Desk) -> None:
    assert at.dstack("prune", "fast-rabbit-1").code == 2
    assert at.dstack("prune", "--purge").code == 2
    assert at.dstack("prune", "--force").code == 2
    assert at.dstack("prune", "--older-than", "soon").code == 1
