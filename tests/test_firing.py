"""What fires: a test for each row of the table in docs/triggers.md."""

from datetime import timedelta

import pytest

from dstack.model.firing import MAX_TIPS, Event, Facts, Tips, fire, read_commit, refused
from dstack.model.refs import is_name
from dstack.model.run_names import triggered_name
from dstack.model.runspec import Trigger, TriggerEvent, Via
from dstack.model.seen import from_files, to_files
from dstack.model.trust import TriggerRule
from tests.triggers import NOW, CodeRemote, Memory, begun, commit_id

PULLS = "workflows: [{name: check, commands: [x], on: pull-request}]"
TAGS = "workflows: [{name: release, commands: [x], on: {push: {tags: ['v*']}}}]"
NIGHTLY = "workflows: [{name: nightly, commands: [x], on: {schedule: 0 3 * * *}}]"
PATHS = "workflows: [{name: test, commands: [x], on: {push: {paths: [src]}}}]"
BOTH = "workflows: [{name: test, commands: [x], on: [push, pull-request]}]"
BROKEN = "workflows: [{name: test, on: pusch}]"


def only(memory: Memory) -> Event:
    (event,) = memory.events()
    return event


def test_the_first_start_records_what_is_there_and_fires_nothing() -> None:
    memory = begun(main="a", old="b")
    assert memory.known.marks == {"heads/main": commit_id("a"), "heads/old": commit_id("b")}
    assert memory.turn() == ()


def test_a_push_fires_once_for_each_workflow_that_wants_it() -> None:
    memory = begun(main="a")
    two = (
        "workflows: [{name: a, commands: [x], on: push}, {name: b, commands: [x]}, {name: c, commands: [x], on: push}]"
    )
    memory.remote.push("main", "b", two, parent="a")
    (first, second) = only(memory).runs
    assert (first.workflow, second.workflow) == ("a", "c")
    assert first.trigger == Trigger(
        event=TriggerEvent.PUSH,
        ref="refs/heads/main",
        before=commit_id("a"),
        commit=commit_id("b"),
        key=first.trigger.key,
        by="Ada <ada@example.org>",
    )
    assert first.trigger.key != second.trigger.key
    assert memory.turn() == ("a push refs/heads/main", "c push refs/heads/main")
    assert memory.turn() == ()


def test_fifty_commits_are_one_push() -> None:
    memory = begun(main="c0")
    for number in range(50):
        memory.remote.push("main", f"c{number + 1}", parent=f"c{number}")
    (run,) = only(memory).runs
    assert (run.trigger.before, run.trigger.commit) == (commit_id("c0"), commit_id("c50"))
    assert memory.turn() == ("test push refs/heads/main",)
    assert memory.turn() == ()


def test_a_new_branch_fires_for_its_tip_also_where_the_commit_was_seen_on_another() -> None:
    memory = begun(main="a")
    memory.remote.refs["refs/heads/feature/x"] = commit_id("a")
    (run,) = only(memory).runs
    assert (run.trigger.ref, run.trigger.before) == ("refs/heads/feature/x", None)
    assert memory.turn() == ("test push refs/heads/feature/x",)


def test_a_deleted_branch_is_forgotten_and_its_name_is_new_later() -> None:
    memory = begun(main="a", x="b")
    tip = memory.remote.refs.pop("refs/heads/x")
    assert memory.turn() == ()
    assert "heads/x" not in memory.known.marks
    memory.remote.refs["refs/heads/x"] = tip
    (first,) = only(memory).runs
    memory.turn()
    del memory.remote.refs["refs/heads/x"]
    memory.turn()
    memory.remote.refs["refs/heads/x"] = tip
    (second,) = only(memory).runs
    assert first.trigger.key != second.trigger.key


def test_a_name_that_becomes_a_folder_of_names_leaves_first() -> None:
    memory = begun(main="a", x="b")
    memory.remote.refs["refs/heads/x/y"] = memory.remote.refs.pop("refs/heads/x")
    events = memory.events()
    assert [event.path for event in events] == ["", "heads/x/y"]
    assert not events[0].can_wait
    memory.turn()
    assert set(memory.known.marks) == {"heads/main", "heads/x/y"}


def test_a_force_push_is_one_event_with_the_paths_between_the_two_trees() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", PATHS, files="src/one docs/two")
    memory.turn()
    memory.remote.push("main", "c", PATHS, files="src/one")
    assert memory.turn() == ()
    memory.remote.push("main", "d", PATHS, files="docs/two")
    assert memory.turn() == ("test push refs/heads/main",)
    assert memory.remote.asked[-1].changed == {(commit_id("c"), commit_id("d"), False)}


def test_back_and_forth_is_a_push_each_time() -> None:
    memory = begun(main="a")
    keys = set()
    for name in ("b", "a", "b", "a", "b"):
        memory.remote.push("main", name)
        (run,) = only(memory).runs
        keys.add(run.trigger.key)
        memory.turn()
    assert len(keys) == 5


def test_a_merge_is_compared_with_where_the_branch_was() -> None:
    memory = begun(main="a")
    memory.remote.commit("side", PATHS, parent="a", files="src/x")
    memory.remote.push("main", "merge", PATHS, parent="side")
    assert memory.turn() == ("test push refs/heads/main",)


def test_paths_of_a_new_branch_count_since_it_left_the_default_branch() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", PATHS, parent="a", files="src/main")
    memory.turn()
    memory.remote.push("one", "c", PATHS, parent="a", files="docs/x")
    memory.remote.push("two", "d", PATHS, parent="a", files="src/x")
    memory.remote.push("three", "e", PATHS, files="docs/x")
    memory.remote.refs["refs/heads/same"] = commit_id("b")
    assert memory.turn() == ("test push refs/heads/three", "test push refs/heads/two")


def test_without_a_default_branch_every_path_of_a_new_one_counts_as_changed() -> None:
    memory = begun(main="a")
    memory.remote.default = None
    memory.remote.push("new", "b", PATHS, files="docs/x")
    assert memory.turn() == ("test push refs/heads/new",)


def test_a_controller_that_was_away_makes_one_run_for_the_newest_tip() -> None:
    memory = begun(main="a", x="b")
    for day in range(3):
        memory.remote.push("main", f"main{day}")
        memory.remote.push("x", f"x{day}")
    memory.wait(days=1)
    assert memory.turn() == ("test push refs/heads/main", "test push refs/heads/x")
    assert memory.turn() == ()


def test_tags_fire_when_new_and_when_moved_whatever_they_are_at() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", TAGS)
    assert memory.turn() == ()
    memory.remote.refs["refs/tags/v1"] = commit_id("b")
    memory.remote.refs["refs/tags/other"] = commit_id("b")
    assert memory.turn() == ("release tag refs/tags/v1",)
    memory.remote.push("refs/tags/v1", "c", TAGS)
    (run,) = only(memory).runs
    assert run.trigger.before == commit_id("b")
    assert TriggerEvent.TAG.via is Via.PUSH
    memory.turn()
    del memory.remote.refs["refs/tags/v1"]
    assert memory.turn() == ()


def test_what_dstack_itself_keeps_there_fires_nothing() -> None:
    memory = begun(main="a")
    for ref in ("refs/heads/dstack/runs/x", "refs/tags/dstack/best", "refs/notes/commits", "refs/pull/1/merge"):
        memory.remote.push(ref, ref)
    assert memory.events() == ()


@pytest.mark.parametrize("ref", ["refs/pull/7/head", "refs/merge-requests/7/head", "refs/pull-requests/7/from"])
def test_a_pull_request_fires_when_opened_and_updated(ref: str) -> None:
    memory = begun(main="a")
    memory.remote.push("topic", "b", PULLS, parent="a")
    memory.turn()
    memory.remote.refs[ref] = commit_id("b")
    (run,) = only(memory).runs
    assert (run.trigger.pull, run.trigger.fork, run.trigger.before) == (7, False, None)
    memory.turn()
    memory.remote.refs[ref] = memory.remote.push("topic", "c", PULLS, parent="b")
    assert memory.turn() == (f"check pull-request {ref}",)
    assert memory.turn() == ()


def test_a_pull_request_closed_and_reopened_with_the_same_head_fires_nothing_even_if_its_ref_was_gone() -> None:
    memory = begun(main="a")
    head = memory.remote.push("refs/pull/7/head", "b", PULLS, parent="a")
    assert memory.turn() == ("check pull-request refs/pull/7/head",)
    del memory.remote.refs["refs/pull/7/head"]
    assert memory.events() == ()
    memory.remote.refs["refs/pull/7/head"] = head
    assert memory.events() == ()
    memory.remote.push("refs/pull/7/head", "c", PULLS, parent="b")
    assert memory.turn() == ("check pull-request refs/pull/7/head",)


def test_a_head_that_no_branch_reaches_is_a_forks() -> None:
    memory = begun(main="a")
    memory.remote.push("refs/pull/8/head", "b", PULLS, parent="a")
    (run,) = only(memory).runs
    assert run.trigger.fork


def test_a_pull_request_and_its_branch_are_two_events() -> None:
    memory = begun(main="a")
    memory.remote.refs["refs/pull/7/head"] = memory.remote.push("topic", "b", BOTH, parent="a")
    assert memory.turn() == ("test push refs/heads/topic", "test pull-request refs/pull/7/head")


def test_branches_of_a_pull_request_are_those_it_goes_into() -> None:
    memory = begun(main="a", release="r")
    on = "workflows: [{name: check, commands: [x], on: {pull-request: {branches: [release]}}}]"
    memory.remote.push("refs/pull/1/head", "b", on, parent="a")
    memory.remote.push("refs/pull/2/head", "c", on, parent="a")
    memory.remote.bases[2] = "release"
    assert memory.turn() == ("check pull-request refs/pull/2/head",)


def test_paths_of_a_pull_request_are_all_that_it_changes() -> None:
    memory = begun(main="a")
    on = "workflows: [{name: check, commands: [x], on: {pull-request: {paths: [src]}}}]"
    memory.remote.push("refs/pull/1/head", "b", on, parent="a", files="src/x")
    memory.turn()
    memory.remote.push("refs/pull/1/head", "c", on, parent="b", files="docs/x")
    memory.remote.push("refs/pull/2/head", "d", on, parent="a", files="docs/x")
    assert memory.turn() == ("check pull-request refs/pull/1/head",)


@pytest.mark.parametrize(
    "words", ["Fix [skip ci]", "[CI SKIP] x", "x\n\n[no ci]", "x [skip dstack]", "x\n\n\nskip-checks: true"]
)
def test_a_tip_that_asks_to_skip_starts_nothing_and_is_seen(words: str) -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", BOTH, message=words)
    memory.remote.refs["refs/pull/1/head"] = commit_id("b")
    assert memory.turn() == ()
    assert memory.events() == ()
    memory.remote.push("main", "c", BOTH, message="not [skip-ci], but skip ci")
    assert memory.turn() == ("test push refs/heads/main",)


def test_a_broken_file_is_told_once_and_passes() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", BROKEN)
    assert memory.turn() == ()
    trouble = memory.known.troubles["heads/main"]
    assert trouble.mark == commit_id("b")
    assert "'pusch' is no trigger (did you mean 'push'?)" in trouble.reason
    assert memory.events() == ()
    memory.remote.push("main", "c")
    assert memory.turn() == ("test push refs/heads/main",)
    assert not memory.known.troubles


def test_a_broken_file_that_was_there_at_the_first_start_is_told() -> None:
    memory = Memory(CodeRemote())
    memory.remote.push("main", "a", BROKEN)
    memory.turn()
    memory.turn()
    assert memory.known.troubles["heads/main"].mark == commit_id("a")
    assert memory.events() == ()


def test_whom_a_commit_names_is_one_line_of_bounded_length() -> None:
    assert read_commit(None, "Eve \x1b[0m\n<e@x>\udcff " + "y" * 10_000, "").by[:20] == "Eve [0m <e@x> yyyyyy"
    assert len(read_commit(None, "y" * 10_000, "").by) == 300


def test_a_commit_without_the_file_starts_nothing_and_is_no_trouble() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", None)
    event = only(memory)
    assert (event.runs, event.move.troubles, event.can_wait) == ((), {}, True)


def test_troubles_of_a_branch_go_with_it() -> None:
    memory = begun(main="a")
    memory.remote.push("x", "b", BROKEN)
    memory.turn()
    del memory.remote.refs["refs/heads/x"]
    memory.turn()
    assert (dict(memory.known.troubles), set(memory.known.marks)) == ({}, {"heads/main"})


def test_a_move_that_starts_nothing_can_wait_and_nothing_is_missed() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", PATHS, parent="a", files="docs/x")
    assert only(memory).can_wait
    memory.remote.push("main", "c", PATHS, parent="b", files="src/x")
    (run,) = only(memory).runs
    assert run.trigger.before == commit_id("a")


def test_a_new_branch_that_starts_nothing_is_written_down_so_that_its_next_push_counts_from_there() -> None:
    memory = begun(main="a")
    memory.remote.push("x", "b", PATHS, parent="a", files="docs/x")
    event = only(memory)
    assert (event.runs, event.can_wait) == ((), False)


GRACE = TriggerRule(branches=("main",), by=("grace@example.org", "signer:grace@example.org"))


def test_who_may_not_starts_nothing_and_is_named() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b")
    memory.remote.push("topic", "c")
    assert memory.turn((GRACE,)) == ("test push refs/heads/topic",)
    assert memory.known.troubles["heads/main"].workflows == ("test",)
    assert memory.known.troubles["heads/main"].reason.startswith("Ada <ada@example.org> may not start runs from")
    assert memory.turn() == ()


def test_who_signed_a_commit_is_asked_only_where_it_matters() -> None:
    memory = begun(main="a")
    memory.remote.signers = {memory.remote.push("main", "b"): "grace@example.org"}
    memory.remote.push("topic", "c")
    assert memory.turn((GRACE,)) == ("test push refs/heads/main", "test push refs/heads/topic")
    assert [lookups.signers for lookups in memory.remote.asked if lookups.signers] == [{commit_id("b")}]


def test_rules_of_the_default_branch_hold_for_its_schedules() -> None:
    memory = at_night()
    memory.wait(days=1)
    assert memory.turn((GRACE,)) == ()
    ((path, trouble),) = memory.known.troubles.items()
    assert path.startswith("schedule/nightly.")
    assert "may not start runs" in trouble.reason
    memory.wait(days=1)
    memory.remote.signers = {commit_id("a"): "grace@example.org"}
    assert memory.turn((GRACE,)) == ("nightly schedule schedule/nightly",)
    assert not memory.known.troubles


def test_what_the_remote_refuses_is_given_up_the_third_time() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b")
    for times in (1, 2, 3):
        event = only(memory)
        assert event.runs
        memory.seen = refused(event, memory.known, "denied\nby a \x1b[31mhook").applied(memory.known, memory.next_id())
        assert memory.known.troubles["heads/main"].refusals == times
    assert memory.known.troubles["heads/main"].reason == "denied by a [31mhook"
    assert memory.events() == ()
    memory.remote.push("main", "c")
    assert only(memory).runs
    memory.turn()
    assert not memory.known.troubles


def test_refusals_of_another_commit_do_not_count() -> None:
    memory = begun(main="a")
    for name in ("b", "c", "d", "e"):
        memory.remote.push("main", name)
        memory.seen = refused(only(memory), memory.known, "no").applied(memory.known, memory.next_id())
        assert memory.known.troubles["heads/main"].refusals == 1


def test_half_of_a_push_that_survived_is_made_again_under_the_same_keys() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b")
    memory.remote.push("new", "c")
    first = [run for event in memory.events() for run in event.runs]
    memory.remote.push("later", "d")
    again = [run for event in memory.events() for run in event.runs]
    assert set(first) <= set(again)


def test_a_remote_without_branches_says_nothing() -> None:
    memory = begun(main="a", x="b")
    memory.remote.refs.clear()
    found = memory.remote.look(memory.seen)
    assert (found.events, found.baseline) == ((), None)
    assert "no branches any more" in found.problem
    assert CodeRemote().look(None).baseline is None


def test_too_many_refs_are_told() -> None:
    tips = Tips(refs={f"refs/heads/{number}": "0" * 40 for number in range(MAX_TIPS + 1)}, default=None)
    assert "triggers take 100000" in fire(None, tips, Facts(), NOW).problem


def test_what_is_unreadable_in_the_memory_is_taken_as_it_is_now() -> None:
    memory = begun(main="a", x="b")
    files = to_files(memory.known) | {"heads/x": b"nonsense", "odd": b"1", "pulls/x": b"2"}
    memory.seen = from_files(files, memory.next_id())
    assert len(memory.known.faults) == 3
    memory.remote.push("x", "c")
    assert memory.turn() == ()
    assert memory.known.marks == {"heads/main": commit_id("a"), "heads/x": commit_id("c")}
    assert memory.events() == ()


def test_only_what_is_needed_is_looked_up() -> None:
    memory = begun(main="a", x="b")
    memory.turn()
    memory.remote.asked.clear()
    memory.remote.push("x", "c", PATHS, parent="b", files="docs")
    memory.turn()
    commits = [lookups.commits for lookups in memory.remote.asked]
    assert commits == [{commit_id("a"), commit_id("c")}, frozenset()]


# Schedules


def at_night(cron: str = "0 3 * * *", **more: str) -> Memory:
    """A workflow by the clock on the default branch, known since noon."""
    memory = Memory(CodeRemote())
    memory.remote.push("main", "a", NIGHTLY.replace("0 3 * * *", cron), **more)
    memory.turn()
    assert memory.turn() == ()
    return memory


def test_a_schedule_fires_at_its_slot_once() -> None:
    memory = at_night()
    found = memory.remote.look(memory.seen, memory.now)
    assert found.events == ()
    assert found.next_at == NOW + timedelta(hours=15)
    memory.wait(hours=14, minutes=59)
    assert memory.turn() == ()
    memory.wait(minutes=2)
    (run,) = only(memory).runs
    assert (run.trigger.slot, run.trigger.commit) == ("2026-11-24T03:00:00Z", commit_id("a"))
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    assert memory.turn() == ()
    assert memory.remote.look(memory.seen, memory.now).next_at == NOW + timedelta(hours=39)


def test_a_schedule_catches_up_once_for_its_latest_slot() -> None:
    memory = at_night()
    memory.wait(days=30)
    (run,) = only(memory).runs
    assert run.trigger.slot == "2026-12-23T03:00:00Z"
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    assert memory.turn() == ()


def test_a_new_schedule_begins_now_and_a_changed_one_is_new() -> None:
    memory = at_night()
    memory.wait(hours=14)
    memory.remote.push("main", "b", NIGHTLY.replace("0 3", "0 1"))
    assert memory.turn() == ()
    memory.wait(hours=1)
    assert memory.turn() == ()
    memory.wait(hours=22)
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    assert len([path for path in memory.known.marks if path.startswith("schedule/")]) == 1


def test_two_schedules_of_a_workflow_start_one_run_where_both_are_due() -> None:
    memory = at_night("['0 3 * * *', '0 3 * * 2', '5 4 * * *']")
    memory.wait(hours=17)
    (run,) = only(memory).runs
    assert run.trigger.slot == "2026-11-24T04:05:00Z"
    memory.turn()
    assert memory.turn() == ()


def test_the_commit_of_a_schedule_is_the_tip_of_the_default_branch() -> None:
    memory = at_night()
    memory.remote.push("main", "b", NIGHTLY, message="x [skip ci]")
    memory.remote.push("other", "c", NIGHTLY.replace("nightly", "elsewhere"))
    memory.wait(days=1)
    assert [run.trigger.commit for event in memory.events() for run in event.runs] == [commit_id("b")]


def test_schedules_wait_while_the_file_is_broken_and_are_forgotten_with_their_workflow() -> None:
    memory = at_night()
    memory.remote.push("main", "b", BROKEN)
    memory.wait(days=3)
    assert memory.turn() == ()
    memory.remote.push("main", "c", NIGHTLY)
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    memory.remote.push("main", "d")
    memory.turn()
    assert set(memory.known.marks) == {"heads/main"}


def test_a_clock_that_was_wrong_stops_no_schedule_for_ever() -> None:
    memory = at_night()
    memory.wait(days=3650)
    memory.turn()
    memory.now = NOW
    assert memory.turn() == ()
    memory.wait(hours=16)
    assert memory.turn() == ("nightly schedule schedule/nightly",)


def test_a_clock_that_goes_back_a_little_fires_nothing_again() -> None:
    memory = at_night()
    memory.wait(hours=15)
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    memory.wait(hours=-1)
    assert memory.turn() == ()
    memory.wait(hours=1)
    assert memory.turn() == ()


def test_a_schedule_that_the_remote_refuses_is_given_up_the_third_time() -> None:
    memory = at_night()
    memory.wait(hours=16)
    for _ in range(3):
        memory.seen = refused(only(memory), memory.known, "no").applied(memory.known, memory.next_id())
    assert memory.events() == ()
    memory.wait(days=1)
    assert memory.turn() == ("nightly schedule schedule/nightly",)
    assert not memory.known.troubles


def test_it_is_said_whether_there_are_triggers_at_all() -> None:
    memory = begun(main="a")
    assert memory.remote.look(memory.seen).active
    memory.remote.push("main", "b", "workflows: [{name: test, commands: [x]}]")
    memory.turn()
    assert not memory.remote.look(memory.seen).active


# Names


def by_trigger(ref: str, *, pull: int | None = None, slot: str | None = None) -> Trigger:
    key, commit = "0123abcd" * 8, commit_id("a")
    return Trigger(event=TriggerEvent.PUSH, ref=ref, commit=commit, key=key, pull=pull, slot=slot)


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        (by_trigger("refs/heads/main"), "train-main-0123abcd"),
        (by_trigger("refs/heads/feature/Größe_2"), "train-feature-gr-e-2-0123abcd"),
        (by_trigger("refs/heads/ф"), "train-0123abcd"),
        (by_trigger("refs/tags/v1.0"), "train-v1-0-0123abcd"),
        (by_trigger("refs/pull/12/head", pull=12), "train-pr-12-0123abcd"),
        (by_trigger("schedule/train", slot="2026-11-23T03:00:00Z"), "train-2026-11-23t03-00-0123abcd"),
    ],
)
def test_a_run_is_named_by_what_started_it(trigger: Trigger, name: str) -> None:
    assert triggered_name("train", trigger) == name
    assert triggered_name("train", trigger, 2) == f"{name}-2"


def test_every_name_can_be_a_runs() -> None:
    for ref in ("a" * 300, "--", "-a-" * 30, "a." * 40):
        for workflow in ("w", "w" * 63, "a-b" * 21):
            assert is_name(triggered_name(workflow, by_trigger(f"refs/heads/{ref}"), 99999)), (ref, workflow)
