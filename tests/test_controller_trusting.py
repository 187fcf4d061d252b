"""What a controller decides about runs where only signed ones are to be executed."""

import json
import random
from pathlib import Path

import pytest

from cli.home import why_nobody_decides
from cli.session import open_session
from cli.signed_ledger import signer_of_code, signing_in
from controller.pulse import StorePulse
from controller.trusting import UNSET, Judged, Trusting
from controller.turn import Controller, Pulses
from dstack.ledger import records
from dstack.ledger.push import RefUpdate
from dstack.model import refs
from dstack.model.bucket import Bucket
from dstack.model.events import RunFinished
from dstack.model.job import Reason
from dstack.model.observation import SetWanted
from dstack.model.personal import Layer
from dstack.model.runspec import Desired, Wanted
from dstack.model.settings import Settings
from dstack.model.views import Viewer
from dstack.model.world import Moment
from tests.calls import Desk, desk
from tests.repositories import NOW, Place, bare, place, record_of, sh, work
from tests.signers import MAIL, STRANGER, allowed, ssh_key

pytestmark = pytest.mark.keys


@pytest.fixture
def here(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    made = place(top, tmp_path / "cache")
    identity = records.write_id(made.cache.objects, "repository-1")
    assert made.cache.push([RefUpdate(refs.ID, None, identity)], atomic=True).won
    return made


def settings(tmp_path: Path) -> Settings:
    return Settings(signed=True, signers=str(allowed(tmp_path / "signers", f"{MAIL} {ssh_key().public}")))


def judged(here: Place, wanted: Settings) -> Judged:
    seen = here.ledger.observe()
    return Trusting(lambda: here.cache.objects).judged(Viewer(here.ledger.job).views(seen), seen, wanted)


def test_runs_that_are_not_signed_as_they_must_be_are_distrusted(here: Place, tmp_path: Path) -> None:
    here.submit("plain-1")
    here.ledger.signing = ssh_key(STRANGER).signing()
    here.submit("strange-1")
    here.ledger.signing = ssh_key().signing()
    here.submit("good-1")
    found = {run.key.name: run.distrust for run in judged(here, settings(tmp_path)).runs}
    assert found["good-1"] == ""
    assert "it is not signed" in found["plain-1"]
    assert "it is signed by a stranger" in found["strange-1"]
    assert all(not run.distrust for run in judged(here, Settings()).runs)


def test_without_signers_runs_wait_and_what_runs_of_them_goes_on(here: Place, tmp_path: Path) -> None:
    key = str(here.submit("plain-1").key)
    assert judged(here, Settings(signed=True)) == Judged(runs=(), held=frozenset({key}), problem=UNSET)
    away = judged(here, Settings(signed=True, signers=str(tmp_path / "nowhere")))
    assert away == Judged(runs=(), held=frozenset({key}), problem=away.problem)
    assert "can't be read" in away.problem


class _Still:
    def heartbeats(self, urls: frozenset[str]) -> Pulses:
        assert urls is not None
        return Pulses(heartbeats={})

    def beat(self, now: Moment, lease: float) -> None:
        assert lease <= now.ticks + lease


def test_a_turn_finishes_an_unsigned_run_with_the_reason(here: Place, tmp_path: Path) -> None:
    here.ledger.signing = ssh_key().signing()
    here.submit()
    wanted = settings(tmp_path)
    layer = Layer(origin="here", values={"signed": True, "signers": wanted.signers})
    controller = Controller(
        ledger=here.ledger,
        pulse=_Still(),
        store="file:///store",
        entropy=lambda: "e",
        jitter=random.random,
        bucket=Bucket.full(interval=0.1, burst=3, now=0),
        trust=Trusting(lambda: here.cache.objects),
        personal=(layer,),
    )
    controller.step(Moment(wall=NOW, ticks=1))
    record = record_of(here.ledger.observe())
    notes = here.ledger.observe().notes_of(record.key, refs.CONTROLLER)
    assert notes
    assert not [event for event in notes.on(record.root).events if isinstance(event, RunFinished)]
    here.ledger.signing = None
    change = SetWanted(run=record.name, wanted=Wanted(desired=Desired.STOP))
    assert here.ledger.commit([change], here.ledger.observe(), atomic=True).won
    controller.step(Moment(wall=NOW, ticks=2))
    notes = here.ledger.observe().notes_of(record.key, refs.CONTROLLER)
    assert notes
    (end,) = [event for event in notes.on(record.root).events if isinstance(event, RunFinished)]
    assert end.reason is Reason.SIGNATURE
    (job,) = notes.jobs.values()
    assert "it is not signed" in notes.on(job).events[-1].message


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def test_doctor_tells_whether_runs_can_be_signed_and_by_whom(at: Desk, tmp_path: Path) -> None:
    at.dstack("init")

    def looked() -> tuple[str, str]:
        (check,) = [one for one in at.dstack("doctor", "--json").json if one["name"] == "signing"]
        return check["result"], check["text"]

    assert looked() == ("ok", "runs are not signed")
    at.dstack("config", "set", "signed", "true")
    assert looked()[0] == "bad"
    assert "git config user.signingkey" in looked()[1]
    sh(at.folder, "config", "gpg.format", "ssh")
    sh(at.folder, "config", "user.signingkey", str(ssh_key().path))
    assert looked()[0] == "warning"
    signers = allowed(tmp_path / "signers", f"{STRANGER} {ssh_key(STRANGER).public}")
    at.dstack("config", "set", "signers", str(signers), "--personal")
    assert looked()[0] == "bad"
    assert "by nobody in" in looked()[1]
    allowed(signers, f"{MAIL} {ssh_key().public}")
    assert looked() == ("ok", f"runs are signed as {MAIL}, who is in {signers}; all runs must be (`signed: true`)")
    signers.unlink()
    assert "can't be read" in looked()[1]


def test_run_stop_and_resume_sign_where_git_is_set_up_to_and_a_failing_signer_is_told(at: Desk) -> None:
    sh(at.folder, "config", "gpg.format", "ssh")
    sh(at.folder, "config", "user.signingkey", str(ssh_key().path))
    run = json.loads(at.dstack("run", "hello", "--detach", "--json", "-y").out)["run"]
    assert at.dstack("stop", run, "-y", "-d").code == 0
    branch = refs.run_branch(run)
    raw = [sh(at.remote, "cat-file", "commit", one) for one in (branch, f"{branch}^")]
    assert all("BEGIN SSH SIGNATURE" in text for text in raw)
    sh(at.folder, "config", "gpg.ssh.program", "/bin/false")
    before = sh(at.remote, "for-each-ref")
    failed = at.dstack("run", "hello", "--detach", "-y")
    assert failed.code != 0
    assert "the run can't be signed, so nothing was pushed" in failed.err
    assert sh(at.remote, "for-each-ref") == before
    at.dstack("config", "set", "sign", "false", "--personal")
    run = json.loads(at.dstack("run", "hello", "--detach", "--json", "-y").out)["run"]
    assert "SIGNATURE" not in sh(at.remote, "cat-file", "commit", refs.run_branch(run))


def test_why_a_controller_decides_nothing_is_told_to_all(at: Desk) -> None:
    at.dstack("init")
    seen = open_session(at.folder).poll()
    store = seen.store()
    idle = StorePulse(controller="a" * 12, own=seen.store_url, open_store=lambda _url: store, pause=lambda: UNSET)
    idle.beat(Moment(wall=NOW, ticks=1), 60.0)
    assert "decides nothing now: signed runs are demanded" in why_nobody_decides(seen)
    other = StorePulse(controller="b" * 12, own=seen.store_url, open_store=lambda _url: store)
    other.beat(Moment(wall=NOW, ticks=1), 60.0)
    assert why_nobody_decides(seen) == ""


def test_a_controller_signs_with_what_git_is_set_to_where_it_works(here: Place, tmp_path: Path) -> None:
    assert signing_in(here.code.top, Settings()) is None
    sh(here.code.top, "config", "gpg.format", "ssh")
    sh(here.code.top, "config", "user.signingkey", str(ssh_key().path))
    assert signing_in(here.code.top, Settings(sign=False)) is None
    made = signing_in(here.code.top, Settings())
    assert made
    write = made.writer(here.cache.objects, here.cache.context)
    oid = write(here.cache.objects.write_tree({}), [], "a run")
    assert signer_of_code(settings(tmp_path))(here.cache.objects, oid) == MAIL
    assert signer_of_code(Settings())(here.cache.objects, oid) == ""
