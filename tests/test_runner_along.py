"""Artifacts saved while a job runs: when, by whom at most, and that nothing of it ends or spoils the job."""

import json
import threading
from pathlib import Path

import msgspec
import pytest

from dstack.model import keys
from dstack.model import manifest as manifests
from dstack.model.errors import Unavailable
from dstack.model.job import Job
from dstack.model.pool import Phase
from dstack.model.runspec import Desired
from dstack.model.status import Status
from dstack.store.artifacts import Tree, save
from runner.along import Along
from runner.cancelling import Cancel, Cancelled
from runner.executor import Signal
from runner.facts import Given
from runner.held import Cause, Held
from runner.supplied import Supply
from tests.agents import Killed, Office
from tests.attempts import until
from tests.duties import RUN, a_job, given_job


def saving(seconds: float = 10.0, *, artifacts: tuple[str, ...] = ("ckpt", "out")) -> Given:
    return given_job(msgspec.structs.replace(a_job(artifacts=artifacts), saves={"ckpt": seconds}))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def begun(office: Office, one: Given) -> Path:
    """The tree of an attempt that runs."""
    office.assign(one)
    office.until(lambda: one.attempt.key in office.executor.launches)
    return office.executor.launches[one.attempt.key].tree


def last_saved(office: Office, one: Given) -> str | None:
    data = office.objects.get(keys.saved(RUN, one.attempt.job, 1), limit=1000)
    return data.decode() if data else None


def content(office: Office, digest: str | None) -> dict[str, bytes | None]:
    """The files of a set."""
    assert digest is not None
    found = manifests.from_bytes(office.objects.get(keys.manifest(digest), limit=10**6) or b"")
    return {one.path: office.objects.get(keys.content(one.sha256), limit=10**6) for one in found.entries if one.sha256}


def test_what_is_named_is_saved_at_its_interval_and_the_rest_at_the_end(office: Office) -> None:
    one = saving(10.0)
    tree = begun(office, one)
    office.settle(9.0)
    assert last_saved(office, one) is None
    (tree / "ckpt").write_text("step 1")
    office.settle(2.0)
    first = last_saved(office, one)
    assert set(content(office, first)) == {"ckpt"}
    (tree / "ckpt").write_text("step 2!")
    office.settle(9.0)
    second = last_saved(office, one)
    assert content(office, second) == {"ckpt": b"step 2!"}
    assert second != first
    office.executor.end(one.attempt.key)
    office.settle(30.0)
    claim = office.claim(one)
    assert (claim.status, claim.warnings) == (Status.DONE, ())
    assert set(content(office, claim.manifest)) == {"ckpt", "out"}
    assert last_saved(office, one) == second, "nothing is saved behind the end"


def test_before_there_is_anything_to_start_from_nothing_is_named_as_such(office: Office) -> None:
    one = saving(1.0)
    begun(office, one)
    office.settle(5.0)
    assert last_saved(office, one) is None
    assert office.agent.held[one.attempt.key].phase is Phase.RUNNING


@pytest.mark.parametrize("desired", [Desired.STOP, Desired.ABORT])
def test_a_stop_saves_at_once_beside_the_signal_and_an_abort_does_not(office: Office, desired: Desired) -> None:
    one = saving(600.0)
    tree = begun(office, one)
    (tree / "ckpt").write_text("step 7")
    office.want(one.attempt.key, desired)
    office.settle(1.0)
    assert office.executor.signals[0] == (one.attempt.key, Signal.TERM if desired is Desired.STOP else Signal.KILL)
    assert (last_saved(office, one) is not None) is (desired is Desired.STOP)
    assert office.agent.step(office.moment()) > 0, "it doesn't come back to it without a pause"


def test_an_interruption_saves_too(office: Office) -> None:
    one = saving(600.0)
    tree = begun(office, one)
    (tree / "ckpt").write_text("step 7")
    office.agent.shutdown(stop_attempts=True)
    office.settle(1.0)
    assert content(office, last_saved(office, one)) == {"ckpt": b"step 7"}


def test_a_save_that_fails_is_a_warning(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    one = saving(10.0)
    tree = begun(office, one)
    (tree / "ckpt").write_text("step 1")
    put = type(office.objects).put

    def no_marks(self: object, key: str, *args: object, **more: object) -> bool:
        if key.startswith("saved/"):
            msg = "the store has no room"
            raise Unavailable(msg)
        return put(self, key, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(office.objects), "put", no_marks)
    office.settle(25.0)
    assert office.agent.held[one.attempt.key].phase is Phase.RUNNING
    office.executor.end(one.attempt.key)
    office.settle(5.0)
    claim = office.claim(one)
    assert claim.status is Status.DONE
    assert claim.warnings == ("2 saves of artifacts while it ran failed, the last time: the store has no room",)


def test_it_goes_on_after_a_restart_of_the_runner(office: Office) -> None:
    one = saving(10.0)
    tree = begun(office, one)
    office.new_agent()
    (tree / "ckpt").write_text("step 9")
    office.settle(11.0)
    assert content(office, last_saved(office, one)) == {"ckpt": b"step 9"}


def test_another_attempt_starts_from_the_set_over_checkout_and_inputs(office: Office, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "ckpt").write_text("step 7")
    saved = save(office.objects, Tree(root=old), ("ckpt",))
    one = saving()
    again = Given(attempt=msgspec.structs.replace(one.attempt, restore=saved.digest), oid=one.oid, job=one.job)
    assert (begun(office, again) / "ckpt").read_text() == "step 7"


def test_what_was_learned_while_it_ran_is_not_trusted_at_the_end(office: Office) -> None:
    one = saving(10.0)
    tree = begun(office, one)
    (tree / "ckpt").write_text("step 1")
    office.settle(11.0)
    folder = office.executor.launches[one.attempt.key].folder
    (memory,) = folder.glob("digests*")
    # As of a file whose pages changed while its times did not.
    about = (tree / "ckpt").stat()
    stamp = [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    memory.write_text(json.dumps({"files": {"ckpt": [*stamp, "0" * 64]}}))
    office.executor.end(one.attempt.key)
    office.settle(5.0)
    assert content(office, office.claim(one).manifest)["ckpt"] == b"step 1"


# How many moments there are, before or after which something is written outside, from the start to the third save.
MOMENTS = 24


@pytest.mark.parametrize("last", range(0, MOMENTS, 2))
def test_a_runner_killed_at_any_write_saves_on_and_tells_no_secret(tmp_path: Path, last: int) -> None:
    office = Office(tmp_path, supply=Supply(known=lambda: {"TOKEN": "tok_123456"}))
    named = saving(10.0).job
    assert isinstance(named, Job)
    one, died = given_job(msgspec.structs.replace(named, secrets=("TOKEN",))), False
    office.settle()
    office.fuse.left = last
    try:
        office.assign(one)
        for step in ("step 1", "step 2", "step 3"):
            office.settle(10.5)
            launch = office.executor.launches[one.attempt.key]
            (launch.tree / "ckpt").write_text(step)
            office.executor.write(one.attempt.key, f"{step} with tok_123456, tok_")
    except Killed:
        died = True
    office.fuse.left = None
    office.new_agent()
    office.assign(one)
    office.settle(30.0)
    (office.executor.launches[one.attempt.key].tree / "ckpt").write_text("step 4")
    office.executor.write(one.attempt.key, "tok_123456\n")
    office.settle(25.0)
    assert content(office, last_saved(office, one)) == {"ckpt": b"step 4"}
    office.executor.end(one.attempt.key)
    office.settle(30.0)
    claim = office.claim(one)
    assert died, "there are fewer moments than are tried"
    assert (claim.status, set(content(office, claim.manifest))) == (Status.DONE, {"ckpt", "out"})
    text, closed = office.log(one)
    assert closed
    assert "tok_123456" not in text
    assert text.endswith("**********\n")
    assert len(office.executor.started) == 1


class Bench:
    """Saves in threads, held up where the test says so."""

    def __init__(self) -> None:
        self.go, self.count, self.at_once, self.most, self.now = threading.Event(), 0, 0, 0, 0.0
        self.along = Along(self.run, self.save, lambda: self.now)

    def run(self, work: object) -> None:
        assert callable(work)
        threading.Thread(target=work, daemon=True).start()

    def save(self, _held: Held, cancel: Cancel) -> None:
        self.count, self.at_once = self.count + 1, self.at_once + 1
        self.most = max(self.most, self.at_once)
        try:
            while not self.go.wait(0.01):
                cancel.check()
        finally:
            self.at_once -= 1


def running(**changes: object) -> dict[str, Held]:
    one = saving(10.0)
    assert not isinstance(one.job, tuple)
    held = Held(attempt=one.attempt, job=one.job, oid=one.oid, phase=Phase.RUNNING, **changes)  # type: ignore[arg-type]
    return {held.key: held}


def test_no_two_saves_of_an_attempt_are_under_way_and_the_last_one_waits_for_it() -> None:
    bench, held = Bench(), running()
    (key,) = held
    bench.along.look(held, 0.0)
    bench.along.look(held, 11.0)
    until(lambda: bench.at_once == 1)
    for now in (21.0, 31.0):
        bench.along.look(held, now)
    bench.along.look(running(cause=Cause.STOP), 32.0)
    assert (bench.count, bench.most) == (1, 1)
    assert bench.along.end(key, Cancel()) == ""
    assert bench.at_once == 0, "the last save begins behind it"
    bench.along.look(held, 100.0)
    assert bench.count == 1


def test_who_waits_for_a_save_that_hangs_can_be_told_to_give_up() -> None:
    bench, held, unwanted = Bench(), running(), Cancel()
    (key,) = held
    begun, stuck = threading.Event(), threading.Event()

    def hang(_held: Held, _cancel: Cancel) -> None:
        begun.set()
        assert stuck.wait(60)

    along = Along(bench.run, hang, lambda: 0.0)
    along.look(held, 0.0)
    along.look(held, 11.0)
    assert begun.wait(60)
    unwanted.ask()
    with pytest.raises(Cancelled):
        along.end(key, unwanted)
    stuck.set()
