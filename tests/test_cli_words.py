"""The pure parts of the command line: words for times and sizes, tables, names, and what is wanted of a run."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cli.ago import ago, size_text
from cli.lines import JobLine, RunLine
from cli.logs import since_moment
from cli.pick import pick
from cli.run_options import RunOptions, merged
from cli.status_table import job_text, rows, run_text
from cli.stopping import Wish
from cli.stopping import merged as merged_wanted
from cli.table import Column, fitting, plain
from cli.terminal import clean
from dstack.model.errors import Invalid
from dstack.model.job import Reason
from dstack.model.runspec import Desired, Wanted
from dstack.model.status import Status

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def job(job_id: str, **values: object) -> JobLine:
    line = JobLine(
        job=job_id,
        workflow="train",
        matrix={},
        variables={},
        status=Status.DONE,
        reason=None,
        message="",
        exit_code=None,
        attempt=None,
        runner=None,
        reused_from=None,
        needs=(),
        queued_at=None,
        started_at=None,
        finished_at=None,
        logs=None,
        artifacts=None,
    )
    return replace(line, **values)


def run(name: str, *jobs: JobLine, status: Status | None = Status.DONE, **values: object) -> RunLine:
    line = RunLine(
        run=name,
        root="5ab98f2089ae" + "0" * 28,
        workflow="train",
        status=status,
        reason=None,
        message="",
        tags=(),
        submitted_at=NOW,
        submitted_by="Ada <ada@example.org>",
        finished_at=None,
        generation=1,
        jobs=jobs,
    )
    return replace(line, **values)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0, "now"),
        (1, "1 sec ago"),
        (12, "12 sec ago"),
        (60, "1 min ago"),
        (200, "3 mins ago"),
        (3600, "1 hour ago"),
        (86400, "1 day ago"),
        (86400 * 15, "2 weeks ago"),
        (86400 * 65, "2 months ago"),
        (86400 * 800, "2 years ago"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_sizes_in_words() -> None:
    sizes = (0, 1023, 1024, 1536, 1024**2, 5 * 1024**4, 3000 * 1024**4)
    assert [size_text(size) for size in sizes] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "5.0 TiB",
        "3000.0 TiB",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_since(text: str, expected: datetime) -> None:
    assert since_moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "5", "-5m", "999999999d"])
def test_since_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(Invalid, match="neither a span"):
        since_moment(text, NOW)


RUNS = (
    run("fast-rabbit-1", job("aaaa00000001"), job("aaaa00000002")),
    run("fast-rabbit-11", job("bbbb00000001")),
    run("slow-owl-1", job("cccc00000001")),
)


@pytest.mark.parametrize(
    ("word", "name", "exact"),
    [
        ("fast-rabbit-1", "fast-rabbit-1", True),
        ("slow", "slow-owl-1", False),
        ("bbbb", "bbbb00000001", False),
        ("aaaa00000002", "aaaa00000002", True),
        ("slow-owl-1.5ab98f2089ae", "slow-owl-1", True),
    ],
)
def test_an_exact_name_beats_a_prefix_and_a_clear_prefix_will_do(word: str, name: str, *, exact: bool) -> None:
    picked = pick(word, RUNS)
    assert (picked.name, picked.exact) == (name, exact)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fast", "'fast' is the beginning of fast-rabbit-1, fast-rabbit-11: write more of the name"),
        ("aaaa", "'aaaa' is the beginning of aaaa00000001, aaaa00000002: write more"),
        ("fast-rabit-1", "there is no run or job 'fast-rabit-1': did you mean 'fast-rabbit-1'?"),
        ("", "there is no run or job ''"),
    ],
)
def test_what_a_word_does_not_mean(word: str, message: str) -> None:
    with pytest.raises(Invalid) as error:
        pick(word, RUNS)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"status": Status.DONE, "reason": Reason.OK}, "DONE"),
        (
            {"status": Status.QUEUED, "message": "waits for a runner: none is live"},
            "QUEUED: waits for a runner: none is live",
        ),
        ({"status": Status.FAILED, "reason": Reason.EXIT, "exit_code": 3, "message": "x"}, "FAILED: exit code 3"),
        ({"status": Status.FAILED, "reason": Reason.OOM, "exit_code": 137}, "FAILED: oom, exit code 137"),
        ({"status": Status.STOPPED, "reason": Reason.STOPPED, "message": "by Ada"}, "STOPPED: by Ada"),
        ({"status": Status.STOPPED, "reason": Reason.STOPPED, "message": "stopped"}, "STOPPED"),
        (
            {"status": Status.SKIPPED, "reason": Reason.DEPENDENCY, "message": "a is FAILED"},
            "SKIPPED: dependency: a is FAILED",
        ),
        ({"status": Status.DONE, "reason": Reason.OK, "warnings": ("out is empty",)}, "DONE (warning: out is empty)"),
    ],
)
def test_why_a_job_is_as_it_is(values: dict[str, object], text: str) -> None:
    assert job_text(job("aaaa00000001", **values)) == text


def test_broken_and_foreign_runs_are_shown_as_such() -> None:
    assert run_text(run("x", status=None, root="", problem="run.yaml is missing")) == "BROKEN: run.yaml is missing"
    assert run_text(run("x", status=None, problem="a fork?")) == "FOREIGN: a fork?"


def test_on_a_terminal_what_a_run_shares_is_written_once() -> None:
    once = list(rows(RUNS[:1], jobs=True, repeat=False, now=NOW))
    assert [row[0] for row in once] == ["fast-rabbit-1", ""]
    assert [row[2] for row in once] == ["aaaa00000001", "aaaa00000002"]
    assert [row[0] for row in rows(RUNS[:1], jobs=True, repeat=True, now=NOW)] == ["fast-rabbit-1", "fast-rabbit-1"]
    assert [row[2] for row in rows(RUNS, jobs=False, repeat=True, now=NOW)] == ["2 jobs", "1 job", "1 job"]


COLUMNS = (Column(title="RUN", least=6), Column(title="USER", least=6, rank=1), Column(title="STATUS", least=8))


def test_a_plain_table_is_aligned_and_whole() -> None:
    table = plain(COLUMNS, [["fast-rabbit-1", "", "FAILED: exit code 3"], ["b", "Ada", "DONE"]])
    assert table.splitlines() == [
        "RUN            USER  STATUS",
        "fast-rabbit-1        FAILED: exit code 3",
        "b              Ada   DONE",
    ]


@given(st.integers(min_value=1, max_value=60))
def test_a_narrow_terminal_loses_the_least_columns_and_keeps_one(room: int) -> None:
    kept = fitting(COLUMNS, [["fast-rabbit-1", "Ada Tester", "FAILED: exit code 3"]], room)
    assert kept
    assert (1 in kept) == (room >= 6 + 2 + 6 + 2 + 8)


@given(st.text())
def test_nothing_shown_can_command_a_terminal(text: str) -> None:
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text))


def test_options_before_and_behind_the_workflow() -> None:
    options = merged(
        {"detach": True, "priority": 1, "include": ("a",), "name": "x"},
        {"detach": False, "priority": 2, "include": ("b",)},
    )
    assert options == RunOptions(detach=True, priority=2, include=("a", "b"), name="x")


RUN, STOP, ABORT = Desired.RUN, Desired.STOP, Desired.ABORT


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        (Wanted(), Wish(run="x", desired=STOP), Wanted(desired=STOP)),
        (Wanted(desired=ABORT), Wish(run="x", desired=STOP), Wanted(desired=ABORT)),
        (Wanted(desired=STOP), Wish(run="x", desired=ABORT), Wanted(desired=ABORT)),
        (Wanted(), Wish(run="x", desired=STOP, jobs=("a",)), Wanted(jobs={"a": STOP})),
        (Wanted(jobs={"a": ABORT}), Wish(run="x", desired=STOP, jobs=("a", "b")), Wanted(jobs={"a": ABORT, "b": STOP})),
        (Wanted(desired=STOP, jobs={"a": ABORT}), Wish(run="x", desired=STOP, jobs=("b",)), None),
    ],
)
def test_an_abort_is_never_taken_back(before: Wanted, wish: Wish, after: Wanted | None) -> None:
    assert merged_wanted(before, wish, 1) == (after or replace(before, jobs={"a": ABORT, "b": STOP}))


def test_a_wish_for_an_older_generation_is_over() -> None:
    before = Wanted(desired=ABORT, jobs={"a": STOP}, generation=1)
    assert merged_wanted(before, Wish(run="x", desired=STOP, jobs=("b",)), 2) == Wanted(jobs={"b": STOP}, generation=2)
