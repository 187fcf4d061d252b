"""The controller's turn over a real remote: what it writes, what can't stop it, and two of them at once."""

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.turn import Controller, Pulses
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.ledger import Ledger
from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.ledger.submit import create_repository
from dstack.model import bucket, refs
from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.events import Ended
from dstack.model.observation import AppendNotes, Change, Observation, Outcome, Pushed, RunRecord, SetRegistration
from dstack.model.pool import Heartbeat
from dstack.model.refs import RunKey
from dstack.model.runspec import Wanted
from dstack.model.states import RunState
from dstack.model.views import Viewer
from dstack.model.world import Moment
from tests.model_values import ended, heartbeat, moment, registration
from tests.model_values import spec as model_spec
from tests.repositories import bare, hook, place, sh, work

HELLO = b"workflows: [{name: train, commands: x}]"


class Beating:
    """Every runner's heartbeat changes at every look."""

    def __init__(self, *runners: str) -> None:
        self.runners = runners
        self.beats = itertools.count(1)

    def heartbeats(self, _urls: frozenset[str]) -> Pulses:
        number = next(self.beats)
        beats: dict[tuple[str, str], Heartbeat] = {}
        for runner in self.runners:
            beats[runner, f"{runner}-instance"] = heartbeat(runner, beats=number, polls=number)
        return Pulses(heartbeats=beats)

    def beat(self, _now: Moment, _lease: float) -> None:
        """Nobody reads it here."""


def controller(ledger: Ledger, *runners: str) -> Controller:
    """One that pushes as often as it likes."""
    numbers = itertools.count()
    return Controller(
        ledger=ledger,
        pulse=Beating(*runners),
        store="file:///store",
        entropy=lambda: str(next(numbers)),
        jitter=lambda: 0.5,
        bucket=bucket.Bucket.full(interval=0.001, burst=100, now=0.0),
    )


def record(name: str, workflows: bytes = HELLO, root: str = "a" * 40) -> RunRecord:
    """A run as submitted."""
    return RunRecord(
        name=name, tip=root, root=root, spec=model_spec(name), wanted=Wanted(), workflows=workflows, variables=None
    )


def remote(*records: RunRecord, runners: Sequence[str] = ("otter",)) -> MemoryRemote:
    """A remote with these runs and runners."""
    made = MemoryRemote(repository="repo")
    ledger = MemoryLedger(made)
    for one in records:
        made.add_run(one)
    for name in runners:
        ledger.commit([SetRegistration(registration=registration(name))], ledger.observe(), atomic=False)
    return made


def state(made: MemoryRemote, name: str = "run-1") -> RunState:
    """What the records say of a run."""
    ledger = MemoryLedger(made)
    return next(view.state for view in Viewer(ledger.job).views(ledger.observe()) if view.key.name == name)


def report(made: MemoryRemote, event: Ended, runner: str = "otter") -> None:
    """Play the runner: claim an end for the open attempt of every job."""
    ledger = MemoryLedger(made)
    seen = ledger.observe()
    held = seen.assignments[runner]
    for key, attempt in held.attempts.items():
        mine = seen.notes_of(RunKey.from_text(attempt.run), runner)
        lines = mine.on(held.jobs[key]).lines if mine else 0
        claim = ended(
            attempt.attempt, seq=lines + 1, runner=runner, nonce=attempt.nonce, status=event.status, reason=event.reason
        )
        change = AppendNotes(key=RunKey.from_text(attempt.run), writer=runner, events={held.jobs[key]: (claim,)})
        assert ledger.commit([change], ledger.observe(), atomic=False).won


def test_a_run_goes_from_submit_to_done_in_two_pushes() -> None:
    made = remote(record("run-1"))
    one = controller(MemoryLedger(made), "otter")
    one.step(moment(0.0))
    one.step(moment(1.0))
    assert next(iter(MemoryLedger(made).observe().assignments["otter"].attempts.values())).run == f"run-1.{'a' * 12}"
    report(made, ended())
    one.step(moment(2.0))
    verdict = state(made).finished
    assert verdict is not None
    assert str(verdict.status) == "DONE"
    assert one.pushes <= 3
    assert one.step(moment(3.0)) == pytest.approx(15.0), "only heartbeats are to be looked at"
    assert MemoryLedger(made).observe().assignments["otter"].attempts == {}


def test_a_run_that_cannot_be_planned_says_why_and_harms_no_other() -> None:
    made = remote(record("bad-1", b"workflows: [{name: train}]", "b" * 40), record("run-1"))
    one = controller(MemoryLedger(made), "otter")
    for tick in range(3):
        one.step(moment(float(tick)))
    verdict = state(made, "bad-1").finished
    assert verdict is not None
    assert "commands" in verdict.message
    assert len(MemoryLedger(made).observe().assignments["otter"].attempts) == 1


class Stubborn:
    """A ledger whose remote refuses some refs, or is away for some turns."""

    def __init__(
        self, made: MemoryRemote, *, refused: str = "", away: int = 0, error: DstackError | None = None
    ) -> None:
        self.inner = MemoryLedger(made)
        self.refused = refused
        self.away = away
        self.error = error or Unavailable("the remote is away")
        self.looks = 0

    def observe(self) -> Observation:
        self.looks += 1
        if self.away:
            self.away -= 1
            raise self.error
        return self.inner.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        if self.refused and any(self.refused in change.ref for change in changes):
            return Pushed(
                outcomes={change.ref: Outcome.REFUSED for change in changes},
                reasons={change.ref: "a rule" for change in changes},
            )
        return self.inner.commit(changes, seen, atomic=atomic)

    def job(self, oid: str) -> bytes | None:
        return self.inner.job(oid)


def test_a_refused_ref_holds_up_only_what_depends_on_it() -> None:
    made = remote(record("bad-1", root="b" * 40), record("run-1"), runners=())
    one = controller(Stubborn(made, refused="bad-1"))
    one.step(moment(0.0))
    assert state(made, "run-1").planned is not None
    assert state(made, "bad-1").planned is None
    pushes = one.pushes
    due = one.step(moment(0.1))
    assert one.pushes == pushes, "it is not tried again at once"
    assert due is not None
    one.ledger = MemoryLedger(made)
    one.step(moment(5.0))
    assert state(made, "bad-1").planned is not None


def test_an_outage_is_waited_for_with_growing_pauses() -> None:
    made = remote(record("run-1"))
    ledger = Stubborn(made, away=3)
    one = controller(ledger, "otter")
    pauses: list[float] = []
    now = 0.0
    while state(made).planned is None:
        due = one.step(moment(now))
        pauses.append(due or 0.0)
        now += (due or 0.0) + 0.001
    assert pauses[0] < pauses[1] < pauses[2] < 10
    assert ledger.looks == 4


def test_a_push_waits_for_a_token() -> None:
    made = remote(record("run-1"))
    one = controller(MemoryLedger(made), "otter")
    one.bucket = bucket.Bucket.full(interval=10.0, burst=1, now=0.0).take(0.0)
    assert one.step(moment(1.0)) == pytest.approx(9.0)
    assert state(made).planned is None


def test_broken_settings_are_told_and_nothing_stops(caplog: pytest.LogCaptureFixture) -> None:
    made = remote(record("run-1"))
    made.refs[refs.CONFIG] = ("1", b"leese: 1")
    controller(MemoryLedger(made), "otter").step(moment(0.0))
    assert "config.yaml" in caplog.text
    assert state(made).planned is not None


@pytest.mark.parametrize("error", [Unavailable("it is away"), Failed("it belongs to another user")])
def test_trouble_that_lasts_is_told_once_and_so_is_its_end(
    error: DstackError, caplog: pytest.LogCaptureFixture
) -> None:
    made = remote(record("run-1"))
    made.refs[refs.CONFIG] = ("1", b"leese: 1")
    one = controller(Stubborn(made, away=3, error=error), "otter")
    with caplog.at_level("INFO"):
        for tick in range(0, 500, 50):
            one.step(moment(float(tick)))
    assert [caplog.text.count(word) for word in (str(error), "is back", "leese", "Traceback")] == [1, 1, 1, 0]
    assert state(made).planned is not None


def test_heartbeats_are_looked_at_often_enough_to_find_a_lost_runner_however_short_the_lease() -> None:
    made = remote(record("run-1"))
    made.refs[refs.CONFIG] = ("1", b"lease: 1")
    one = controller(MemoryLedger(made), "otter")
    assert [one.step(moment(second)) for second in (0.0, 0.1, 0.2, 0.3)][-1] == pytest.approx(0.25)
    two = controller(MemoryLedger(remote()), "otter")
    assert two.step(moment(0.0)) == pytest.approx(15.0)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare remote with dstack's id, and a work tree whose origin it is."""
    path = bare(tmp_path / "remote.git")
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(path))
    sh(top, "push", "--quiet", "origin", "main")
    create_repository(Cache(tmp_path / "setup", str(path)), "repository-1", b"{}")
    return path


def git_controller(tmp_path: Path, origin: Path, name: str) -> Controller:
    """A controller with a cache of its own."""
    return controller(GitLedger(Cache(tmp_path / name, str(origin))), "otter")


def test_two_controllers_on_one_remote_plan_and_finish_each_run_once(tmp_path: Path, origin: Path) -> None:
    user = place(tmp_path / "code", tmp_path / "user")
    names = [f"run-{number}" for number in range(6)]
    for name in names:
        user.submit(name)
    two = [git_controller(tmp_path, origin, f"controller-{number}") for number in range(2)]
    start = threading.Barrier(2)

    def work_on(one: Controller) -> None:
        start.wait()
        for tick in range(12):
            one.step(moment(float(tick)))

    threads = [threading.Thread(target=work_on, args=(one,)) for one in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = GitLedger(Cache(tmp_path / "judge", str(origin)))
    seen = ledger.observe()
    for name in names:
        found = seen.runs[name]
        assert isinstance(found, RunRecord)
        notes = seen.notes_of(found.key, "controller")
        assert notes is not None
        assert [type(event).__name__ for event in notes.on(found.root).events] == ["Planned"]
    assert seen.problems == ()


def test_what_is_broken_is_reported_and_everything_else_goes_on(tmp_path: Path, origin: Path) -> None:
    user = place(tmp_path / "code", tmp_path / "user")
    key = user.submit("run-1").key
    code = tmp_path / "code"
    sh(code, "push", "--quiet", "origin", "main:refs/heads/dstack/runs/by-hand")
    sh(code, "push", "--quiet", "origin", "main:refs/notes/dstack/nonsense/x")
    one = git_controller(tmp_path, origin, "controller")
    one.step(moment(0.0))
    sh(code, "fetch", "--quiet", "origin", "+refs/notes/dstack/*:refs/notes/dstack/*")
    sh(code, "notes", f"--ref=dstack/{key}/controller", "append", "-m", "this is no JSON", root_of(origin))
    sh(code, "push", "--quiet", "origin", f"refs/notes/dstack/{key}/controller")
    user.submit("run-2")
    one.step(moment(1.0))
    ledger = GitLedger(Cache(tmp_path / "judge", str(origin)))
    seen = ledger.observe()
    views = {view.key.name: view for view in Viewer(ledger.job).views(seen)}
    assert set(views) == {"run-1", "run-2"}
    assert views["run-2"].state.planned is not None
    assert views["run-1"].state.planned is not None
    notes = seen.notes_of(key, "controller")
    assert notes is not None
    assert any("no event" in problem for note in notes.notes.values() for problem in note.problems)


def root_of(origin: Path) -> str:
    """The root commit of run-1."""
    return sh(origin, "rev-parse", "refs/heads/dstack/runs/run-1")


def test_a_rule_of_the_remote_holds_up_one_run_only(tmp_path: Path, origin: Path) -> None:
    user = place(tmp_path / "code", tmp_path / "user")
    user.submit("run-1")
    user.submit("run-2")
    hook(origin, "update", 'case "$1" in refs/notes/dstack/run-1.*) echo "no notes here" >&2; exit 1;; esac')
    one = git_controller(tmp_path, origin, "controller")
    one.step(moment(0.0))
    listed = sh(origin, "for-each-ref", "--format=%(refname)", "refs/notes")
    assert "run-2." in listed
    assert "run-1." not in listed
    (origin / "hooks" / "update").unlink()
    one.step(moment(0.1))
    assert "run-1." not in sh(origin, "for-each-ref", "refs/notes")
    one.retry()
    one.step(moment(0.2))
    assert "run-1." in sh(origin, "for-each-ref", "refs/notes")
