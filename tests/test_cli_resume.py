"""`dstack resume`: what it asks for, whom it refuses and why, and two who do it at once."""

import time
from pathlib import Path

import pytest

from cli.daemons import controller_daemon
from cli.session import open_session
from controller.main import moment
from tests.calls import Desk, stored_desk
from tests.repositories import sh


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return stored_desk(tmp_path, capfd)


def decide(at: Desk, turns: int = 4) -> None:
    """A controller's turns, with nobody to run anything."""
    session = open_session(at.folder)
    controller = controller_daemon(session, session.poll()).controller
    for _ in range(turns):
        time.sleep(min(0.2, controller.step(moment()) or 0))


def stopped(at: Desk, name: str = "mine") -> None:
    """A run of three jobs that has been stopped."""
    assert at.dstack("run", "train", "-d", "--name", name).code == 0
    decide(at)
    assert at.dstack("stop", name, "-d").code == 0
    decide(at)
    assert status(at, name)["status"] == "STOPPED"


def status(at: Desk, name: str = "mine") -> dict[str, object]:
    found: dict[str, object] = at.dstack("status", name, "--json").json[0]
    return found


def test_a_stopped_run_goes_on_in_a_new_generation_with_the_same_jobs(at: Desk) -> None:
    stopped(at)
    before = status(at)
    answer = at.dstack("resume", "mine")
    assert answer.code == 0, answer
    assert "mine goes on:" in answer.err
    assert answer.err.count("was STOPPED") == 3
    assert (status(at)["status"], status(at)["generation"]) == ("QUEUED", 2)
    decide(at)
    after = status(at)
    assert (after["status"], after["generation"]) == ("QUEUED", 2)
    assert [job["job"] for job in after["jobs"]] == [job["job"] for job in before["jobs"]]  # type: ignore[attr-defined]
    subjects = sh(at.remote, "log", "--format=%s", "dstack/runs/mine").splitlines()
    assert [subject.partition(" [")[0] for subject in subjects] == [
        "Run mine: resume",
        "Run mine: stop",
        "Run mine: train",
    ]


def test_it_can_be_stopped_and_resumed_again(at: Desk) -> None:
    stopped(at)
    for generation in (2, 3):
        assert at.dstack("resume", "mine", "--clean").code == 0
        decide(at)
        assert at.dstack("stop", "mine", "-d").code == 0
        decide(at)
        assert (status(at)["status"], status(at)["generation"]) == ("STOPPED", generation)


def test_a_stop_before_anybody_has_answered_stops_the_new_life(at: Desk) -> None:
    stopped(at)
    assert at.dstack("resume", "mine", "--clean").code == 0
    sh(at.folder, "fetch", "--quiet", "origin", "dstack/runs/mine")
    assert at.dstack("stop", "mine", "-d").code == 0
    text = sh(at.remote, "show", "dstack/runs/mine:run.yaml")
    assert "generation: 2" in text
    assert "clean: true" in text
    decide(at)
    assert (status(at)["status"], status(at)["generation"]) == ("STOPPED", 2)


def test_of_two_who_resume_a_run_one_is_told(at: Desk) -> None:
    stopped(at)
    assert at.dstack("resume", "mine", "--json").json["generation"] == 2
    before = at.refs()
    answer = at.dstack("resume", "mine")
    assert (answer.code, "is to be resumed already" in answer.err) == (1, True)
    assert at.refs() == before


def test_a_run_that_can_not_go_on_says_why(at: Desk) -> None:
    assert at.dstack("run", "hello", "-d", "--name", "fresh").code == 0
    assert at.dstack("run", "sad", "--local", "-y", "--name", "far").code == 1
    before = at.refs()
    for name, why in {
        "fresh": "it has not ended yet",
        "far": "it ran with --local, and its runner is gone: `dstack run --from` runs it again",
        "nobody": "there is no run 'nobody'",
    }.items():
        answer = at.dstack("resume", name)
        assert (answer.code, why in answer.err) == (1, True), answer
    assert at.dstack("resume", "fresh", "-f", "--json").code == 2
    assert at.refs() == before


def test_the_beginning_of_a_name_needs_a_yes(at: Desk) -> None:
    stopped(at, "fast-rabbit-1")
    assert "write the whole name, or --yes" in at.dstack("resume", "fast").err
    assert at.dstack("resume", "fast", "-y").code == 0
