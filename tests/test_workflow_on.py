"""`on`: its forms, what they mean, and what is refused, with its place and the way out."""

import re

import pytest

from dstack.model.errors import Invalid
from dstack.model.triggers import PullRequest, Push, Schedule, Triggers
from dstack.model.workflows import parse_workflows
from tests.installed import ROOT

NIGHTLY = Schedule(cron="30 4 * * 1-5")


def text(on: str, more: str = "") -> str:
    return f"workflows:\n- name: a\n  commands: [x]\n  on: {on}\n{more}"


@pytest.mark.parametrize(
    ("on", "meant"),
    [
        ("push", Triggers(push=(Push(),))),
        ("[push, pull-request]", Triggers(push=(Push(),), pull_request=(PullRequest(),))),
        ("{push: }", Triggers(push=(Push(),))),
        ("{push: {}}", Triggers(push=(Push(),))),
        ("{push: [{}, {}]}", Triggers(push=(Push(),))),
        ("{push: {branches: main}}", Triggers(push=(Push(branches=("main",)),))),
        (
            "{push: {branches: ['**', '!wip/**'], tags: [v*], paths: [src, '!src/*.md']}}",
            Triggers(push=(Push(branches=("**", "!wip/**"), tags=("v*",), paths=("src", "!src/*.md")),)),
        ),
        (
            "{push: [{branches: main}, {tags: '*'}]}",
            Triggers(push=(Push(branches=("main",)), Push(tags=("*",)))),
        ),
        (
            "{pull-request: {branches: [main], paths: [src]}}",
            Triggers(pull_request=(PullRequest(branches=("main",), paths=("src",)),)),
        ),
        ("{schedule: '30 4 * * 1-5'}", Triggers(schedule=(NIGHTLY,))),
        ("{schedule: '  30 4  * * 1-5 '}", Triggers(schedule=(NIGHTLY,))),
        ("{schedule: ['@daily', {cron: 30 4 * * 1-5}]}", Triggers(schedule=(Schedule(cron="@daily"), NIGHTLY))),
        (
            "{schedule: {cron: 0 3 * * sun, zone: America/New_York}}",
            Triggers(schedule=(Schedule(cron="0 3 * * sun", zone="America/New_York"),)),
        ),
    ],
)
def test_forms_of_on(on: str, meant: Triggers) -> None:
    assert parse_workflows(text(on).encode()).get("a").on == meant


def test_the_examples_of_the_page_are_right() -> None:
    page = (ROOT / "docs" / "triggers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    found = parse_workflows(block.encode())
    assert [bool(one.on) for one in found.by_name.values()] == [True, True]
    for form in re.findall(r"^\| `(on|push|pull-request|schedule): (\w.*?)` \|", page, re.MULTILINE):
        key, value = form
        parse_workflows(text(value if key == "on" else f"{{{key}: {value}}}").encode())


def test_without_on_nothing_starts_a_workflow() -> None:
    assert not parse_workflows(b"workflows: [{name: a, commands: [x]}]").get("a").on


@pytest.mark.parametrize(
    ("on", "where", "words"),
    [
        ("", "4:6", "a trigger must be a text, not null"),
        ("[]", "4:7", "`on` is empty: write `push`, `pull-request` or `schedule`"),
        ("{}", "4:7", "`on` is empty: write `push`"),
        ("pusch", "4:7", "'pusch' is no trigger (did you mean 'push'?)"),
        ("[push, schedule]", "4:14", "`schedule` must say when: write `on: {schedule: '30 4 * * 1-5'}`"),
        ("merge-request", "4:7", "dstack has no trigger 'merge-request': write `pull-request`, which means GitLab's"),
        ("{workflow_dispatch: }", "4:8", "'workflow_dispatch' in `on`: leave it out: every workflow can be started by"),
        ("{pull_request: }", "4:8", "the key is written `pull-request`, not 'pull_request'"),
        ("{push: {paths-ignore: [docs]}}", "4:15", "write `paths: ['**', '!docs']`"),
        ("{push: {brunches: [main]}}", "4:15", "unknown key 'brunches' in `push` (did you mean 'branches'?)"),
        ("{push: main}", "4:14", "`push` must be a mapping (`key: value` lines), not the value 'main'"),
        ("{push: []}", "4:14", "`push` is empty: write an entry, or leave it out"),
        ("{push: {branches: []}}", "4:25", "`branches` is empty: name some, or leave it out where all of them matter"),
        ("{push: {branches: ['!wip']}}", "4:25", "`branches` only take back with `!`: name what is meant before"),
        ("{push: {branches: [refs/heads/main]}}", "4:26", "write the name alone, without `refs/heads/`"),
        ("{push: {branches: [release**]}}", "4:26", "`**` stands for folders and alone between slashes"),
        ("{push: {paths: ['!!a']}}", "4:23", "there is no `!` here"),
        ("{push: {paths: [../a]}}", "4:23", "'../a' can't be a pattern"),
        ("{push: {tags: ['*'], paths: [a]}}", "4:14", "`paths` don't apply to tags: name `branches` as well"),
        (f"{{push: [{', '.join(['{}'] * 21)}]}}", "4:14", "`push` has 21 entries: at most 20"),
        (f"{{push: {{tags: [{', '.join(['a'] * 201)}]}}}}", "4:21", "`tags` has 201 patterns: at most 200"),
        ("{schedule: 0 3 * *}", "4:18", "`cron`: '0 3 * *' can't be cron: write minute, hour, day, month and weekday"),
        ("{schedule: 61 3 * * *}", "4:18", "`cron`: '61' can't be the minute: it goes from 0 to 59"),
        ("{schedule: 0 3 * * mo}", "4:18", "'mo' can't be the day of the week: it goes from 0 to 7, or sun to sat"),
        ("{schedule: '0 0 31 2,4 *'}", "4:18", "names a day that none of its months has"),
        ("{schedule: }", "4:18", "`schedule` must say when"),
        ("{schedule: {zone: UTC}}", "4:18", "this schedule has no `cron`: write it like '30 4 * * 1-5'"),
        ("{schedule: {cron: '@daily', tz: UTC}}", "4:35", "dstack has no 'tz' in `schedule`: write `zone`"),
        (
            "{schedule: {cron: '@daily', zone: Europe/Berlni}}",
            "4:41",
            "`zone`: 'Europe/Berlni' is no time zone (did you mean 'Europe/Berlin'?)",
        ),
        ("{schedule: {cron: '@daily', zone: localtime}}", "4:41", "'localtime' is no time zone"),
        ("{schedule: {cron: '@daily', zone: ../UTC}}", "4:41", "'../UTC' is no time zone"),
    ],
)
def test_what_is_refused_where_and_how_to_mend_it(on: str, where: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_workflows(text(on).encode(), path="w.yaml")
    (found,) = str(caught.value).splitlines()
    assert found.startswith(f"w.yaml:{where}: "), found
    assert words in found


def test_what_a_submitter_would_supply_a_trigger_can_not() -> None:
    more = "  depends-on: [b]\n- {name: b, commands: [x], env: [HOST, PORT=1]}\n"
    with pytest.raises(Invalid, match="w:2:9: a trigger has no environment to take 'HOST' of workflow 'b' from: write"):
        parse_workflows(text("push", more).encode(), path="w")
