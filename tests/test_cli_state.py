"""What commands show of the state remote: JSON shapes, broken and foreign records, a cache that can be lost."""

import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from cli.daemons import controller_daemon
from cli.session import open_session
from controller.main import moment
from tests.calls import Desk, desk
from tests.repositories import hook, sh, work

JOB_KEYS = {
    "job",
    "workflow",
    "matrix",
    "variables",
    "status",
    "reason",
    "message",
    "exit_code",
    "attempt",
    "runner",
    "reused_from",
    "needs",
    "queued_at",
    "started_at",
    "finished_at",
    "logs",
    "artifacts",
}
RUN_KEYS = {
    "run",
    "root",
    "workflow",
    "status",
    "reason",
    "tags",
    "submitted_at",
    "submitted_by",
    "finished_at",
    "generation",
    "jobs",
}


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def decide(at: Desk, turns: int = 3) -> None:
    """A controller's turns, with nobody to run anything."""
    session = open_session(at.folder)
    controller = controller_daemon(session, session.poll()).controller
    for _ in range(turns):
        time.sleep(min(0.2, controller.step(moment()) or 0))


def test_init_sets_up_what_is_missing_and_nothing_else(at: Desk) -> None:
    before = (at.folder / ".dstack/workflows.yaml").read_text()
    store = at.folder.parent / "store"
    first = at.dstack("init", "--store", store.as_uri())
    assert first.code == 0
    assert store.as_uri() in first.out
    refs = at.refs()
    assert {"refs/dstack/id", "refs/heads/dstack/config"} <= refs.keys()
    assert not any("probe" in ref for ref in refs)
    assert at.dstack("init").code == 0
    assert at.refs() == refs
    assert (at.folder / ".dstack/workflows.yaml").read_text() == before


def test_init_moves_new_runs_to_another_store(at: Desk) -> None:
    at.dstack("init")
    url = (at.folder.parent / "other store").as_uri()
    assert at.dstack("init", "--store", url).code == 0
    assert f'store: "{url}"' in sh(at.remote, "show", "refs/heads/dstack/config:config.yaml")
    assert at.dstack("doctor").code == 0


def test_init_writes_a_sample_that_can_be_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = work(tmp_path / "new")
    shutil.rmtree(folder / ".dstack")
    at = Desk(folder=folder, remote=folder, capture=capfd)
    assert "workflows.yaml is new" in at.dstack("init").out
    assert at.dstack("run", "hello", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("text", "name"), [("workflows: [{name: first, commands: [x]}]", "first"), ("workflows: 3", "WORKFLOW")]
)
def test_init_names_a_workflow_that_there_is(at: Desk, text: str, name: str) -> None:
    at.write(".dstack/workflows.yaml", text)
    assert f"dstack run {name} --local" in at.dstack("init").out


def test_init_keeps_the_state_in_a_repository_apart(at: Desk, tmp_path: Path) -> None:
    sh(tmp_path, "init", "--quiet", "--bare", "state.git")
    answer = at.dstack("init", "--remote", "../state.git")
    assert answer.code == 0, answer
    assert "refs/dstack/id" in sh(tmp_path / "state.git", "for-each-ref")
    assert "refs/dstack/id" not in at.refs()
    assert at.dstack("run", "hello", "-d").code == 0


def test_init_refuses_a_remote_that_is_nowhere(at: Desk) -> None:
    answer = at.dstack("init", "--remote", "nowhere")
    assert answer.code == 1
    assert "neither a remote nor a folder has that name" in answer.err


def test_a_dry_run_shows_the_plan_and_pushes_nothing(at: Desk) -> None:
    before = at.refs()
    answer = at.dstack("run", "train", "--dry-run", "--rows", "7")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == [
        "WORKFLOW",
        "prepare",
        "train",
    ]
    assert "train (2 jobs)" in answer.out
    assert "lr=0.1,0.2" in answer.out
    assert "rows=7" in answer.out
    assert "Nothing was pushed" in answer.err
    assert at.refs() == before
    assert len(at.dstack("run", "train", "--dry-run", "--json").json["jobs"]) == 3


def test_what_detached_prints(at: Desk) -> None:
    answer = at.dstack("run", "train", "-d", "--json", "--name", "first").json
    assert answer.keys() == {"run", "root", "snapshot", "jobs"}
    assert answer["run"] == "first"
    assert at.refs()["refs/heads/dstack/runs/first"] == answer["root"]
    assert [job.keys() >= JOB_KEYS for job in answer["jobs"]] == [True] * 3
    assert [job["status"] for job in answer["jobs"]] == ["QUEUED", "SUBMITTED", "SUBMITTED"]
    assert answer["jobs"][1]["needs"] == [answer["jobs"][0]["job"]]
    plain = at.dstack("run", "hello", "-d")
    assert plain.out.strip() in at.dstack("status", "--all").out


def test_what_travels_is_said_once_for_a_remote(at: Desk) -> None:
    at.write("new.txt", "new\n")
    assert "This sends 1 changed files" in at.dstack("run", "hello", "-d").err
    assert "This sends" not in at.dstack("run", "hello", "-d").err


def test_credentials_stay_at_home_with_a_warning(at: Desk) -> None:
    at.write(".env", "TOKEN=x\n")
    answer = at.dstack("run", "hello", "-d", "--name", "first")
    assert "warning: " in answer.err
    assert ".env" in answer.err
    ref = next(ref for ref in at.refs() if "snapshots/first." in ref)
    assert ".env" not in sh(at.remote, "ls-tree", "-r", "--name-only", ref)


def test_flags_and_matrix_values_reach_the_run(at: Desk) -> None:
    answer = at.dstack("run", "-d", "train", "--lr", "0.2", "--batch-size", "a b;$(id)", "--json").json
    train = answer["jobs"][1]
    assert [job["workflow"] for job in answer["jobs"]] == ["prepare", "train"]
    assert train["matrix"] == {"lr": "0.2"}
    assert train["variables"]["batch_size"] == "a b;$(id)"


def test_nobody_is_home(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "first")
    (run,) = at.dstack("status", "--json").json
    assert run.keys() >= RUN_KEYS
    assert run["status"] == "QUEUED"
    assert run["jobs"][0]["message"].startswith("no controller has been seen for 60 s: start one with `dstack up`")
    assert datetime.fromisoformat(run["submitted_at"]).utcoffset() is not None


def test_without_a_runner_a_job_says_so(at: Desk) -> None:
    at.dstack("run", "train", "-d", "--name", "first")
    decide(at)
    jobs = at.dstack("status", "first", "--json").json[0]["jobs"]
    assert [job["message"] for job in jobs] == [
        "waits for a runner: none is live",
        "waits for prepare",
        "waits for prepare",
    ]
    assert at.dstack("runners", "--json").json == []


def test_stop_and_its_end(at: Desk) -> None:
    at.dstack("run", "train", "-d", "--name", "first")
    assert at.dstack("stop", "first", "-d").code == 0
    assert at.dstack("status", "--json").json[0]["status"] == "STOPPING"
    decide(at)
    (run,) = at.dstack("status", "--json").json
    assert (run["status"], run["reason"]) == ("STOPPED", "stopped")
    assert {job["status"] for job in run["jobs"]} == {"STOPPED"}
    again = at.dstack("stop", "first")
    assert (again.code, again.out) == (0, "first has ended already: STOPPED\n")


def test_a_stop_that_the_remote_refuses_says_what_to_do(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "first")
    hook(at.remote, "pre-receive", "echo 'Permission denied to ada'; exit 1")
    answer = at.dstack("stop", "first", "-d")
    assert answer.code == 1
    assert "refused the push" in answer.err
    assert "ask for the right to push" in answer.err


def test_a_guess_is_not_stopped_unasked(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "first")
    before = at.refs()
    answer = at.dstack("stop", "fir", "-d")
    assert answer.code == 1
    assert "'fir' is only the beginning of 'first': write the whole name, or --yes" in answer.err
    assert at.refs() == before
    assert at.dstack("stop", "fir", "-d", "-y").code == 0


def test_stop_mine_leaves_the_runs_of_others(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at.dstack("run", "hello", "-d", "--name", "mine")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Bob")
    at.dstack("run", "hello", "-d", "--name", "bobs")
    assert at.dstack("stop", "--mine", "-d").code == 0
    statuses = {run["run"]: run["status"] for run in at.dstack("status", "-a", "--json").json}
    assert statuses == {"mine": "QUEUED", "bobs": "STOPPING"}
    assert [run["run"] for run in at.dstack("status", "-a", "--mine", "--json").json] == ["bobs"]


def test_which_runs_are_shown(at: Desk) -> None:
    for name in ("one", "two"):
        at.dstack("run", "hello", "-d", "--name", name)
    at.dstack("stop", "one", "-d")
    decide(at)
    assert [run["run"] for run in at.dstack("status", "--json").json] == ["two"]
    assert {run["run"] for run in at.dstack("ps", "-n", "2", "--json").json} == {"one", "two"}
    at.dstack("stop", "two", "-d")
    decide(at)
    assert len(at.dstack("status", "--json").json) == 1
    assert len(at.dstack("status", "--all", "--no-jobs").out.splitlines()) == 3


def broken_run(at: Desk, name: str, text: str) -> None:
    blob = sh(at.remote, "hash-object", "-w", "--stdin", stdin=text.encode())
    tree = sh(at.remote, "mktree", stdin=f"100644 blob {blob}\trun.yaml\n".encode())
    commit = sh(at.remote, "commit-tree", "-m", "by hand", tree)
    sh(at.remote, "update-ref", f"refs/heads/dstack/runs/{name}", commit)


def test_a_run_made_by_hand_is_shown_as_broken_and_everything_else_goes_on(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "good")
    broken_run(at, "bad", "}{ \x1b[31m")
    decide(at)
    shown = at.dstack("status")
    assert (shown.code, "good" in shown.out, "bad" in shown.out) == (0, True, False)
    assert "Not shown, because they can't be executed here: bad" in shown.err
    answer = at.dstack("status", "bad")
    assert "BROKEN: " in answer.out
    assert "\x1b" not in answer.out
    assert "`git push origin --delete dstack/runs/bad` removes it" in answer.err
    for command in ("stop", "logs", "artifacts"):
        refused = at.dstack(command, "bad")
        assert refused.code == 1
        assert "bad is no run of this dstack repository: run.yaml" in refused.err
        assert "\x1b" not in refused.err
    assert at.dstack("doctor").code == 0


def test_a_foreign_run_is_shown_as_such(at: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    at.dstack("run", "hello", "-d", "--name", "ours")
    (tmp_path / "fork").mkdir()
    fork = desk(tmp_path / "fork", capfd)
    fork.dstack("run", "hello", "-d", "--name", "theirs")
    sh(at.remote, "fetch", "--quiet", str(fork.remote), "refs/heads/dstack/runs/theirs:refs/heads/dstack/runs/theirs")
    decide(at)
    assert "FOREIGN: it belongs to another dstack repository" in at.dstack("status", "theirs").out
    assert at.dstack("stop", "theirs", "-d").code == 1


def test_a_note_line_that_is_no_json_harms_nothing(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "first")
    decide(at)
    ref = next(ref for ref in at.refs() if ref.startswith("refs/notes/dstack/first."))
    root = at.refs()["refs/heads/dstack/runs/first"]
    sh(at.remote, "notes", "--ref", ref, "append", "-m", "not json", root)
    shown = at.dstack("status")
    assert (shown.code, "warning: first: in the notes of controller: note on" in shown.err) == (0, True)
    assert at.dstack("status").err == shown.err  # from the file of what is known, too
    answer = at.dstack("doctor")
    assert answer.code == 0
    assert "some can't be read" in answer.out
    at.dstack("stop", "first", "-d")
    decide(at)
    assert at.dstack("status", "first", "--json").json[0]["status"] == "STOPPED"


def cache_files(at: Desk) -> list[Path]:
    return [path for path in (at.folder / ".git/dstack").rglob("*") if path.is_file()]


def test_a_cache_that_is_garbage_is_made_anew(at: Desk) -> None:
    at.dstack("run", "hello", "-d", "--name", "first")
    expected = at.dstack("status", "--json").out
    for path in cache_files(at):
        path.chmod(0o644)
        path.write_bytes(b"garbage")
    assert at.dstack("status", "--json").out == expected
    shutil.rmtree(at.folder / ".git/dstack")
    assert at.dstack("status", "--json").out == expected


def test_the_users_repository_is_left_alone(at: Desk) -> None:
    refs, index = sh(at.folder, "for-each-ref"), (at.folder / ".git/index").read_bytes()
    at.write("new.txt", "new\n")
    at.dstack("run", "hello", "-d")
    at.dstack("status")
    assert sh(at.folder, "for-each-ref") == refs
    assert (at.folder / ".git/index").read_bytes() == index
    assert sh(at.folder, "status", "--short") == "?? new.txt"


def test_two_who_submit_at_one_instant_both_win(at: Desk) -> None:
    at.dstack("init")
    command = [sys.executable, "-m", "cli.main", "-C", str(at.folder), "run", "hello", "-d"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = {process.communicate(timeout=30)[0].strip() for process in both}
    assert len(names) == 2
    assert {f"refs/heads/dstack/runs/{name}" for name in names} <= at.refs().keys()


def test_the_doctor_finds_a_lock_that_a_crash_left(at: Desk) -> None:
    at.dstack("init")
    assert at.dstack("doctor").code == 0
    lock = at.remote / "packed-refs.lock"
    lock.touch()

    os.utime(lock, (0, 0))
    answer = at.dstack("doctor")
    assert answer.code == 1
    assert f"remove {lock}" in answer.out


def test_the_doctor_as_json_names_a_store_that_is_gone(at: Desk) -> None:
    store = at.folder.parent / "store"
    at.dstack("init", "--store", store.as_uri())
    shutil.rmtree(store)
    answer = at.dstack("doctor", "--json")
    assert answer.code == 1
    (bad,) = [check for check in answer.json if check["result"] == "bad" and check["name"] == "store"]
    assert "dstack init --store" in bad["text"]
    refused = at.dstack("run", "hello", "-d")
    assert (refused.code, "holds nothing of this repository" in refused.err) == (1, True)


def test_from_a_folder_below_and_with_a_detached_head(at: Desk) -> None:
    (at.folder / "deep/er").mkdir(parents=True)
    sh(at.folder, "checkout", "--quiet", "--detach")
    below = Desk(folder=at.folder / "deep/er", remote=at.remote, capture=at.capture)
    assert below.dstack("run", "hello", "-d").code == 0
    assert below.dstack("status").code == 0
