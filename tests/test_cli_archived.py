"""Commands on archived runs: what was archived is read like any other run, and costs nobody who doesn't ask."""

from datetime import timedelta
from pathlib import Path

import pytest

from cli.session import open_session
from dstack.ledger.archive import Archive
from dstack.ledger.gitledger import GitLedger
from dstack.model import archive
from dstack.model.retention import DEFAULT
from dstack.model.views import Viewer
from dstack.model.world import World
from tests.calls import WORKFLOWS, Desk, ended_run, stored_desk
from tests.repositories import NOW


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return stored_desk(tmp_path, capfd)


def archive_all(at: Desk) -> None:
    """As a controller does a few years later."""
    cache = open_session(at.folder).cache
    ledger = GitLedger(cache)
    seen = ledger.observe()
    world = World(repository=seen.repository or "", store="", runs=Viewer(ledger.job).views(seen), entropy="e")
    runs = archive.leaving(world, seen, DEFAULT, NOW + timedelta(days=3650))
    assert runs
    assert Archive(cache).add(runs).won
    assert not any("/runs/" in ref or "/snapshots/" in ref or "/notes/" in ref for ref in at.refs())


def test_an_archived_run_is_read_like_any_other(at: Desk, tmp_path: Path) -> None:
    name = ended_run(at, "train", "--lr", "0.1")
    before = at.dstack("status", name, "--json").json
    said = {command: at.dstack(*command.split(), name).out for command in ("logs", "artifacts", "artifacts --json")}
    archive_all(at)
    assert at.dstack("status", "--json").json == []
    assert name not in at.dstack("status").out
    (after,) = at.dstack("status", "--all", "--json").json
    assert after == {**before[0], "archived": True}
    assert at.dstack("status", name, "--json").json == [after]
    assert name in at.dstack("status", "-a").out
    for command, out in said.items():
        assert at.dstack(*command.split(), name).out == out
    job = after["jobs"][0]["job"]
    assert at.dstack("logs", job).code == 0
    assert at.dstack("logs", f"{name}.{after['root'][:12]}").out == said["logs"]
    assert at.dstack("logs", name[:4]).out == said["logs"]
    assert at.dstack("checkout", name, str(tmp_path / "code")).code == 0
    assert (tmp_path / "code/train.py").exists()
    assert at.dstack("diff", name).code == 0


METRICS = """\
workflows:
- name: fit
  matrix: {lr: [1, 2]}
  commands:
  - mkdir -p out
  - printf '{"loss":0.%s}' $lr > out/metrics.json
  artifacts: [out]
  metrics: [out/metrics.json]
"""


def test_metrics_of_an_archived_run_are_those_it_had(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", METRICS)
    (at.folder / ".dstack/variables.yaml").unlink()
    name = ended_run(at, "fit")
    before = at.dstack("metrics", name, "--sort", "loss", "--json").json
    assert [one["metrics"] for one in before] == [{"loss": 0.1}, {"loss": 0.2}]
    archive_all(at)
    assert at.dstack("metrics", name, "--sort", "loss", "--json").json == before
    assert at.dstack("diff", name).code == 0


def test_a_tag_on_an_archived_run_serves_dependencies(at: Desk) -> None:
    name = ended_run(at, "prepare")
    archive_all(at)
    assert at.dstack("tag", name).out == f"latest is {name}\n"
    (line,) = at.dstack("tags", "--json").json
    assert (line["run"], line["status"]) == (name, "DONE")
    assert at.dstack("status", name, "--json").json[0]["tags"] == ["latest"]
    use = "  - name: use\n    depends-on: ['prepare:latest']\n    commands: wc -l < data/rows.txt\n"
    at.write(".dstack/workflows.yaml", WORKFLOWS + use)
    answer = at.dstack("run", "use", "--local", "-y")
    assert answer.code == 0, answer
    assert answer.out == "use | 5\n", answer


def test_a_name_used_again_means_the_newest(at: Desk) -> None:
    assert at.dstack("run", "hello", "--local", "-y", "--name", "fox").code == 0
    (first,) = at.dstack("status", "fox", "--json").json
    archive_all(at)
    assert at.dstack("run", "prepare", "--local", "-y", "--name", "fox").code == 0
    (second,) = at.dstack("status", "fox", "--json").json
    assert (second["workflow"], second["archived"]) == ("prepare", False)
    assert at.dstack("status", f"fox.{first['root'][:12]}", "--json").json[0]["workflow"] == "hello"
    assert "world" in at.dstack("logs", f"fox.{first['root'][:12]}").out
    assert [one["root"] for one in at.dstack("status", "--all", "--json").json] == [second["root"], first["root"]]
    archive_all(at)
    assert at.dstack("status", "fox", "--json").json[0]["root"] == second["root"]


def test_an_archived_name_beats_the_beginning_of_another(at: Desk) -> None:
    assert at.dstack("run", "hello", "--local", "-y", "--name", "fox-1").code == 0
    archive_all(at)
    assert at.dstack("run", "prepare", "--local", "-y", "--name", "fox-12").code == 0
    assert at.dstack("status", "fox-1", "--json").json[0]["workflow"] == "hello"
    answer = at.dstack("status", "fox")
    assert (answer.code, "fox-1, fox-12" in answer.err) == (1, True)
    assert "there is no run" in at.dstack("status", "wolf").err


def test_who_does_not_ask_does_not_read_the_archive(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ended_run(at, "hello")
    archive_all(at)
    other = ended_run(at, "hello", "--no-cache")

    def refuse(_: Archive) -> None:
        pytest.fail("the archive was read")

    monkeypatch.setattr(Archive, "look", refuse)
    assert [one["run"] for one in at.dstack("status", "--json").json] == [other]
    assert at.dstack("status", other).code == 0
    assert at.dstack("logs", other).code == 0
    assert name not in at.dstack("status", "-n", "5").out


def test_an_archived_run_is_not_resumed_and_says_what_is_done_instead(at: Desk) -> None:
    name = ended_run(at, "sad")
    archive_all(at)
    stopped = at.dstack("stop", name)
    assert (stopped.code, stopped.out) == (0, f"{name} has ended already: FAILED: exit; it is archived\n")
    answer = at.dstack("resume", name)
    assert (answer.code, f"`dstack run --from {name}`" in answer.err) == (1, True)
    assert at.dstack("run", "--from", name, "--local", "-y").code == 1  # its command fails again
    assert [one["workflow"] for one in at.dstack("status", "--all", "--json").json] == ["sad", "sad"]
