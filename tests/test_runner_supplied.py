"""What a machine gives to an attempt: its secrets, and where they never come to lie."""

import stat
from pathlib import Path

import msgspec
import pytest

from dstack.model.errors import Failed
from dstack.model.job import Job, Reason
from dstack.model.status import Status
from runner.executor import Exit, StartFailed
from runner.facts import Given
from runner.secretfile import set_secret
from runner.supplied import Supply, supply_of, take, taken
from tests.agents import Office
from tests.duties import a_job, given_job

VALUE = "hf_0123456789abcdef"


def job_with(*names: str) -> Job:
    return msgspec.structs.replace(a_job(), secrets=names)


def needing(*names: str) -> Given:
    return given_job(job_with(*names))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    office = Office(tmp_path / "office", supply=Supply(runner="quick-owl", known=lambda: {"TOKEN": VALUE, "PIN": "12"}))
    office.folder.mkdir(exist_ok=True)
    return office


def everything(office: Office) -> bytes:
    """All that left the machine."""
    stored = b"".join(office.objects.get(head.key, limit=10**7) or b"" for head in office.objects.list(""))
    return stored + repr([office.claim(one) for one in office.assigned.values()]).encode()


def test_a_job_gets_its_secrets_and_its_log_does_not(office: Office) -> None:
    one = needing("TOKEN")
    office.assign(one)
    office.until(lambda: one.attempt.key in office.executor.launches)
    launch = office.executor.launches[one.attempt.key]
    assert launch.environment["TOKEN"] == VALUE
    assert VALUE not in repr((launch.job, launch.labels, launch.script))
    (kept,) = [path for path in launch.folder.iterdir() if VALUE.encode() in path.read_bytes()]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    office.executor.write(one.attempt.key, f"my token is {VALUE[:7]}")
    office.settle(0.5)
    office.new_agent()
    office.executor.write(one.attempt.key, f"{VALUE[7:]}\n")
    office.executor.exits[one.attempt.key] = Exit(
        exit_code=1, message=f"it said {VALUE}", warnings=(f"it warned of {VALUE}",)
    )
    office.settle(5.0)
    claim = office.claim(one)
    assert (claim.message, claim.warnings[0]) == (f"it said {'*' * 19}", f"it warned of {'*' * 19}")
    assert office.log(one)[0].startswith(f"hello from train\nmy token is {'*' * 19}\n")
    assert claim.log_size == len(office.log(one)[0])
    assert VALUE.encode() not in everything(office)
    assert not [path for path in office.folder.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]


def test_a_secret_that_the_machine_has_not_got_ends_the_attempt_and_says_what_to_do(office: Office) -> None:
    one = needing("TOKEN", "WANDB_KEY")
    office.assign(one)
    office.settle(3.0)
    claim = office.claim(one)
    assert (claim.status, claim.reason) == (Status.FAILED, Reason.REJECTED)
    assert claim.message == (
        "the runner quick-owl has no secret WANDB_KEY: say `dstack-runner secret set WANDB_KEY` on its machine, "
        "and run the job again"
    )
    assert claim.message in office.log(one)[0]
    assert office.executor.started == []


def test_a_secret_too_short_to_hide_is_told(office: Office) -> None:
    one = needing("PIN")
    office.executor.ends["train"] = Exit(exit_code=0)
    office.assign(one)
    office.settle(3.0)
    assert office.log(one)[0] == (
        "dstack: the secret PIN is shorter than 4 characters: it is not hidden in this log\nhello from train\n"
    )


def test_why_it_could_not_start_is_told_without_them(office: Office) -> None:
    one = needing("TOKEN")
    office.trees.trouble = StartFailed(Reason.CHECKOUT, f"no such thing as {VALUE}")
    office.assign(one)
    office.settle(3.0)
    assert office.claim(one).message == f"no such thing as {'*' * 19}"
    assert VALUE.encode() not in everything(office)


def test_where_they_cannot_be_read_any_more_nothing_is_told_and_it_ends_all_the_same(office: Office) -> None:
    one = needing("TOKEN")
    office.assign(one)
    office.until(lambda: one.attempt.key in office.executor.launches)
    (office.executor.launches[one.attempt.key].folder / "secrets").write_bytes(b"{")
    office.executor.write(one.attempt.key, f"my token is {VALUE}\n")
    office.new_agent()
    office.executor.exits[one.attempt.key] = Exit(exit_code=1, message=f"it said {VALUE}")
    office.settle(300.0)
    assert office.claim(one).status is Status.FAILED
    assert VALUE.encode() not in everything(office)


def test_they_are_read_for_each_attempt_and_stay_what_they_were_within_it(tmp_path: Path) -> None:
    job, state = job_with("TOKEN"), tmp_path / "state"
    set_secret(state, "TOKEN", "first-value")
    supply = supply_of("quick-owl", state, None)
    take(tmp_path / "one", job, supply)
    set_secret(state, "TOKEN", "second-value")
    take(tmp_path / "one", job, supply)
    take(tmp_path / "two", job, supply)
    assert [taken(tmp_path / name, job)["TOKEN"] for name in ("one", "two")] == ["first-value", "second-value"]


def test_of_the_users_environment_only_what_is_declared_is_taken_and_first(tmp_path: Path) -> None:
    job, state = job_with("TOKEN", "OTHER"), tmp_path / "state"
    set_secret(state, "TOKEN", "of-the-file")
    set_secret(state, "OTHER", "other-of-the-file")
    take(tmp_path / "one", job, supply_of("owl", state, {"TOKEN": "of-the-shell", "OTHER": "", "HOME": "/home/ada"}))
    assert taken(tmp_path / "one", job) == {"TOKEN": "of-the-shell", "OTHER": "other-of-the-file"}


def test_a_secrets_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    set_secret(tmp_path / "state", "TOKEN", VALUE)
    (tmp_path / "state" / "secrets.json").chmod(0o644)
    with pytest.raises(StartFailed, match="chmod 600") as error:
        take(tmp_path / "one", job_with("TOKEN"), supply_of("quick-owl", tmp_path / "state", None))
    assert error.value.reason is Reason.REJECTED
    assert not (tmp_path / "one").exists()


def test_a_job_without_secrets_asks_for_none(tmp_path: Path) -> None:
    def known() -> dict[str, str]:
        msg = "nobody asked"
        raise Failed(msg)

    take(tmp_path / "one", a_job(), Supply(known=known))
    assert taken(tmp_path / "one", a_job()) == {}
