"""How far uploads and pulls are: in the heartbeat, and in words in `dstack status`."""

from pathlib import Path

import pytest

from cli.ago import share_text
from cli.waiting import phase_text
from dstack.model.pool import Phase, Transfer
from dstack.model.status import Status
from dstack.store.store import Sent, Source, unwatched
from dstack.store.tally import silent
from runner.cancelling import Cancel, Cancelled
from runner.engine_values import Refused
from runner.pulling import Pulls
from runner.telling import telling
from runner.transfers import Transfers, What
from tests.agents import Office
from tests.duties import given_job


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 1, "0/1 B"),
        (999, 999, "999/999 B"),
        (120_000_000, 500_000_000, "120/500 MB"),
        (400_000_000, 1_200_000_000, "0.4/1.2 GB"),
        (15, 1500, "0.0/1.5 kB"),
        (7, 5, "5/5 B"),
        (-3, 5, "0/5 B"),
        (10**30, 10**30, "1000000000000000000/1000000000000000000 TB"),
    ],
)
def test_a_share_is_said_in_one_unit(done: int, total: int, text: str) -> None:
    assert share_text(done, total) == text


@pytest.mark.parametrize(
    ("status", "phase", "transfer", "text"),
    [
        (Status.RUNNING, Phase.UPLOADING, Transfer(what="artifacts", done=120, total=500), "uploading 120/500 B"),
        (Status.ASSIGNED, Phase.PREPARING, Transfer(what="image", done=1, total=5), "pulling the image 1/5 B"),
        (Status.ASSIGNED, Phase.PREPARING, Transfer(what="input", done=1, total=5), "fetching inputs 1/5 B"),
        (Status.RUNNING, Phase.UPLOADING, Transfer(what="image", done=1, total=5), "uploading"),
        (Status.RUNNING, Phase.UPLOADING, Transfer(what="\x1b[2J", done=1, total=5), "uploading"),
        (Status.RUNNING, Phase.UPLOADING, Transfer(what="artifacts", done=1, total=0), "uploading"),
        (Status.RUNNING, Phase.UPLOADING, Transfer(what="artifacts", done=1, total=-5), "uploading"),
        (Status.RUNNING, Phase.RUNNING, Transfer(what="artifacts", done=1, total=5), ""),
        (Status.RUNNING, Phase.PREPARING, None, ""),
        (Status.ASSIGNED, Phase.PREPARING, None, "preparing"),
        (Status.ASSIGNED, Phase.WAITING, None, "waits its turn there"),
        (Status.ASSIGNED, None, None, ""),
    ],
)
def test_a_job_says_what_it_is_at(status: Status, phase: Phase | None, transfer: Transfer | None, text: str) -> None:
    assert phase_text(status, phase, transfer) == text


def test_a_transfer_is_shown_while_it_lasts_and_bounded_by_its_total() -> None:
    transfers = Transfers()
    progress = transfers.watch("a.1", What.ARTIFACTS, silent)
    assert transfers.shown({"a.1"}) == {}
    progress(0, 0)
    assert transfers.shown({"a.1"}) == {}, "of what has no size nothing is shown"
    progress(3, 10)
    before = transfers.shown({"a.1"})
    progress(12, 10)
    assert before == {"a.1": Transfer(what="artifacts", done=3, total=10)}
    assert transfers.shown({"a.1"})["a.1"].done == 10
    transfers.forget("a.1")
    transfers.forget("a.1")
    assert transfers.shown({"a.1"}) == {}


def test_who_is_asked_to_give_up_still_does() -> None:
    cancel, transfers = Cancel(), Transfers()
    progress = transfers.watch("a.1", What.INPUT, telling("it", cancel))
    cancel.ask()
    with pytest.raises(Cancelled):
        progress(1, 2)
    assert transfers.shown({"a.1"}) == {}


class Engine:
    """Pulls two layers, a line at a time, and waits for who looks."""

    def __init__(self) -> None:
        self.seen = 0

    def pull(self, _name: str, take, unwanted) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        for come in (10, 60, 100):
            take({"id": "one", "status": "Downloading", "progressDetail": {"current": come, "total": 100}})
            unwanted.wait(0.3)
        if not self.seen:
            self.seen = 1
            raise Refused(500, "registry: connection reset by peer")


def test_a_pull_tells_its_bytes_also_over_a_new_try() -> None:
    told: list[tuple[int, int]] = []
    lines: list[str] = []
    Pulls(Engine(), pauses=(0.01,)).pull(  # type: ignore[arg-type]
        "busybox", lines.append, lambda: None, lambda done, total: told.append((done, total))
    )
    assert {total for _, total in told} == {100}
    assert len({done for done, _ in told}) >= 2
    assert all(0 <= done <= 100 for done, _ in told)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_the_heartbeat_tells_how_far_it_is_and_beats_no_more_often_for_it(office: Office) -> None:
    one = given_job()
    office.assign(one)
    office.settle(60)
    progress = office.agent.works.transfers.watch(one.attempt.key, What.ARTIFACTS, silent)
    stray = office.agent.works.transfers.watch("of.9", What.ARTIFACTS, silent)
    office.until(lambda: office.agent.heart.turn() > 10)
    before = office.agent.heart.beats
    for done in range(1, 10):
        progress(done, 10)
        stray(done, 10)
        office.step(0.5)
    assert office.agent.heart.beats == before
    office.step(15)
    office.step()
    assert office.heartbeat().transfers == {one.attempt.key: Transfer(what="artifacts", done=9, total=10)}


def test_artifacts_are_told_of_while_they_are_saved_and_not_after(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, put = given_job(), office.objects.put
    seen = list[dict[str, Transfer]]()

    def spying(key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        if key.startswith("manifests/"):
            seen.append(office.agent.works.transfers.shown({one.attempt.key}))
        return put(key, data, if_absent=if_absent, sent=sent)

    monkeypatch.setattr(office.objects, "put", spying)
    office.assign(one)
    office.settle()
    office.executor.end(one.attempt.key)
    office.settle()
    size = len("result")
    assert seen == [{one.attempt.key: Transfer(what="artifacts", done=size, total=size)}]
    assert office.agent.works.transfers.shown({one.attempt.key}) == {}
