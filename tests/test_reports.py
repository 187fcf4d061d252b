"""What a forge is told of runs: states of commits, and the comment on a pull request."""

import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from msgspec.structs import replace as with_fields

from dstack.forge.comment import MOST, Values, marker, render
from dstack.forge.markdown import LENGTH, shown
from dstack.model.forge import ForgeSettings, Reported
from dstack.model.job import Reason
from dstack.model.lines import RunLine, run_line
from dstack.model.pool import Phase
from dstack.model.refs import RunKey
from dstack.model.reports import MOST_RUNS, RECENT, CommitStatus, Lines, Reports, reported, reports
from dstack.model.runspec import Options, Via
from dstack.model.status import Status
from dstack.model.verdicts import State
from dstack.model.world import RunView
from tests.model_values import EPOCH
from tests.reported_runs import COMMIT, RUNNING, done, job_of, view

GOLDEN = Path(__file__).parent / "golden" / "pull-request-comment.md"
ON = ForgeSettings()
NOW = EPOCH + timedelta(minutes=5)
TRAIN = job_of()


def told(*runs: RunView, settings: ForgeSettings = ON, phases: dict[str, Phase] | None = None) -> Reports:
    chosen = reported(runs, settings, NOW)
    return reports(chosen, Lines().of(chosen), phases or {}, settings)


def status(*runs: RunView, phases: dict[str, Phase] | None = None) -> CommitStatus:
    (one,) = told(*runs, phases=phases).statuses.values()
    return one


@pytest.mark.parametrize(
    ("run", "state", "words"),
    [
        (view((TRAIN, None)), State.PENDING, "fast-rabbit-1 waits to be run"),
        (view((TRAIN, RUNNING)), State.RUNNING, "fast-rabbit-1 is running"),
        (view((TRAIN, done()), verdict=Status.DONE), State.SUCCESS, "fast-rabbit-1 is done: 1 job"),
        (
            view((TRAIN, done(Status.FAILED, exit_code=3)), verdict=Status.FAILED, reason=Reason.EXIT),
            State.FAILURE,
            "fast-rabbit-1 failed: train (exit code 3), 1 of 1 job",
        ),
        (view((TRAIN, None), verdict=Status.FAILED, reason=Reason.INVALID), State.ERROR, "failed"),
        (view((TRAIN, done(Status.STOPPED)), verdict=Status.STOPPED), State.CANCELLED, "fast-rabbit-1 was stopped"),
        (view((TRAIN, None), verdict=Status.ABORTED), State.CANCELLED, "fast-rabbit-1 was aborted"),
    ],
)
def test_a_commit_shows_how_its_run_stands(run: RunView, state: State, words: str) -> None:
    one = status(run)
    assert (one.commit, one.context, one.state, one.ref) == (COMMIT, "dstack/train", state, "main")
    assert words in one.description


def test_a_job_that_a_heartbeat_names_as_running_runs() -> None:
    waiting = replace(RUNNING, attempts=(replace(RUNNING.attempts[0], started=None),))
    run = view((TRAIN, waiting))
    assert status(run).state is State.PENDING
    assert status(run, phases={f"{TRAIN.id}.1": Phase.PREPARING}).state is State.PENDING
    assert status(run, phases={f"{TRAIN.id}.1": Phase.RUNNING}).state is State.RUNNING


def test_of_several_runs_of_a_workflow_on_a_commit_the_last_one_counts() -> None:
    first = view((TRAIN, done(Status.FAILED)), verdict=Status.FAILED)
    again = view((TRAIN, RUNNING), name="slow-fox-2", later=60)
    other = view((job_of("test"), done()), name="shy-cat-3", verdict=Status.DONE)
    found = told(again, other, first).statuses
    assert {key: one.state for key, one in found.items()} == {
        (COMMIT, "dstack/train"): State.RUNNING,
        (COMMIT, "dstack/test"): State.SUCCESS,
    }


def test_what_ended_long_ago_is_not_told_again() -> None:
    old = view((TRAIN, done()), verdict=Status.DONE)
    assert reported((old,), ON, EPOCH + RECENT + timedelta(seconds=91)) == ()
    assert reported((old,), ON, EPOCH + RECENT) == (old,)
    running = view((TRAIN, RUNNING))
    assert reported((running,), ON, EPOCH + 9 * RECENT) == (running,)


def test_runs_of_users_are_told_only_where_that_is_set_and_the_commit_is_what_ran() -> None:
    base = view((TRAIN, RUNNING))
    mine = replace(base, spec=with_fields(base.spec, trigger=None, via=Via.CLI))
    clean = replace(mine, spec=with_fields(mine.spec, code=with_fields(mine.spec.code, snapshot=mine.spec.code.commit)))
    local = replace(clean, spec=with_fields(clean.spec, options=Options(only="otter")))
    for run in (mine, clean, local):
        assert reported((run,), ON, NOW) == ()
    every = ForgeSettings(report=Reported.ALL)
    assert reported((mine, clean, local), every, NOW) == (clean,)


def test_commits_can_be_left_without_a_status_and_pull_requests_without_a_comment() -> None:
    run = view((TRAIN, RUNNING), pull=7)
    alone = told(run, settings=ForgeSettings(report=Reported.NOTHING))
    assert (alone.statuses, list(alone.pulls)) == ({}, [7])
    other = told(run, settings=ForgeSettings(comment=False))
    assert (len(other.statuses), other.pulls) == (1, {})


def test_a_commit_that_is_none_is_not_asked_about() -> None:
    assert reported((view((TRAIN, None), commit="../../hooks"), view((TRAIN, None), commit="C" * 40)), ON, NOW) == ()


@given(st.text(max_size=400))
def test_a_status_is_one_line_of_bounded_length_whatever_a_run_says(text: str) -> None:
    run = view(verdict=Status.FAILED, reason=Reason.INVALID)
    run = replace(run, problem=text, spec=with_fields(run.spec, workflow=text))
    one = status(run)
    assert len(one.description) <= 140
    assert (one.description + one.context).isprintable()


def test_lines_are_worked_out_once_for_each_view() -> None:
    made: list[RunView] = []

    def make(one: RunView) -> RunLine:
        made.append(one)
        return run_line(one)

    lines = Lines(make)
    first, second = view((TRAIN, None)), view((TRAIN, None), name="slow-fox-2")
    lines.of((first, second))
    lines.of((first, second))
    assert made == [first, second]
    lines.of((second,))
    lines.of((first,))
    assert made == [first, second, first]


def test_a_pull_request_is_told_of_the_runs_of_its_newest_commit() -> None:
    old = view((TRAIN, done()), verdict=Status.DONE, pull=7)
    new = view((TRAIN, RUNNING), name="slow-fox-2", later=60, pull=7, commit="e" * 40)
    test = view((job_of("test"), None), name="shy-cat-3", later=61, pull=7, commit="e" * 40)
    pull = told(old, test, new).pulls[7]
    assert (pull.commit, [one.line.run for one in pull.runs]) == ("e" * 40, ["shy-cat-3", "slow-fox-2"])
    assert told(old, settings=ForgeSettings(comment=False)).pulls == {}
    assert told(view((TRAIN, None), pull=-1)).pulls == {}
    many = [view((job_of(f"w{n}"), None), name=f"run-{n}", pull=7) for n in range(2 * MOST_RUNS)]
    assert len(told(*many).pulls[7].runs) == MOST_RUNS


def body_of(*runs: RunView, values: dict[str, Values] | None = None, web: str | None = None) -> str:
    report = told(*runs, settings=ForgeSettings(web=web)).pulls[7]
    return render(report, values or {}, marker("repository"))


def test_the_comment_reads_as_in_the_golden_file() -> None:
    sweep = [job_of(lr=lr, metrics=["m.json"]) for lr in ("0.1", "0.2", "0.3")]
    states = [done(manifest="m" * 64), done(Status.FAILED, exit_code=137), RUNNING]
    train = view(*zip(sweep, states, strict=True), pull=7)
    test = view((job_of("test"), done()), name="shy-cat-3", verdict=Status.DONE, pull=7)
    stuck = view(*((job_of("wide", n=str(n)), None) for n in range(60)), name="slow-fox-2", pull=7)
    values = {sweep[0].id: Values(values={"accuracy": 0.93125, "loss": 1e-7, "kind": "svm|rbf"}, broken=True)}
    found = body_of(train, test, stuck, values=values, web="https://dstack.example.org/")
    if os.environ.get("REWRITE_GOLDEN") == "1":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


# What forges make of plain text: mentions, references, commits, emoji, links; and what Markdown and HTML are made of.
EVIL = (
    "@everyone #1 !2 :tada: https://evil.example.com www.evil.example.com ![x](https://evil.example.com/x.png) "
    "a|b `c` **d** <script>e</script> <!-- f --> [g](h) &amp; \\| \n\n/close\n# i \u202e \u2028 <img src=x onerror=y>"
)


def html_of(markdown: str) -> str:
    found: str = MarkdownIt("commonmark").enable("table").render(markdown)
    return found


@given(st.one_of(st.just(EVIL), st.text(), st.text("|`<>@#[]()!&\\*_~:/w.\n\t -", min_size=1)))
def test_no_text_of_others_does_anything_in_a_comment(text: str) -> None:
    one = shown(text)
    inner = one.removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"[@#:|`<>*_~!\\\[\]\n]", re.sub(r"&#[0-9]+;", "", inner))
    assert "www." not in inner
    page = html_of(f"| a | b |\n|---|---|\n| {one} | x |\n\nword {one} word\n")
    assert re.sub(r"</?(table|thead|tbody|tr|th|td|p|code)>|[^<>]+", "", page) == ""
    assert page.count("<td>") == 2


def test_what_is_shown_reads_as_it_was() -> None:
    assert html_of(shown("a|b <c> & `d`")) == "<p><code>a|b &lt;c&gt; &amp; `d`</code></p>\n"
    assert shown("train") == "train"
    assert len(re.sub(r"&#[0-9]+;", "x", shown("@" * 1000))) == LENGTH + len("<code></code>")


def test_nothing_of_others_escapes_its_place_in_the_whole_comment() -> None:
    job = job_of(lr=EVIL, metrics=["m.json"])
    run = view((job, done(manifest="m" * 64)), pull=7)
    run = replace(run, spec=with_fields(run.spec, workflow=EVIL))
    found = body_of(run, values={job.id: Values(values={EVIL: EVIL})})
    assert found.startswith(marker("repository") + "\n")
    plain = re.sub(r"&#[0-9]+;", "", found.removeprefix(marker("repository")))
    assert not re.search(r"@|!\[|://|www\.|<script|<img|<!--|^/", plain, re.MULTILINE)


def test_the_failed_jobs_of_many_are_among_those_shown() -> None:
    jobs = [(job_of(n=str(number)), done(Status.FAILED if number == 99 else Status.DONE)) for number in range(100)]
    found = body_of(view(*jobs, pull=7))
    assert "n=99" in found
    assert "n=98" not in found
    assert "Not shown: 50 jobs" in found


def test_a_comment_is_never_longer_than_forges_take() -> None:
    wide = [job_of(lr="@" * 90 + str(n), metrics=["m.json"]) for n in range(80)]
    run = view(*((one, done(manifest="m" * 64)) for one in wide), pull=7)
    values = {one.id: Values(values={"#" * 90 + str(n): "|" * 90 for n in range(20)}) for one in wide}
    found = body_of(run, *(replace(run, key=RunKey(f"run-{n}", run.key.root12)) for n in range(30)), values=values)
    assert len(found) <= MOST
    assert "Not shown" in found
