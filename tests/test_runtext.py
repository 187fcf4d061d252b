"""run.yaml: readable, stable, and read back exactly; what is odd is refused."""

import contextlib
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dstack.model.errors import Invalid
from dstack.model.runspec import Code, Desired, Options, RunSpec, Trigger, TriggerEvent, Via, Wanted
from dstack.model.runtext import RUN_LIMIT, from_text, to_text
from dstack.model.yaml_text import quoted

OID = "0123456789abcdef0123456789abcdef01234567"
SPEC = RunSpec(
    repository="4f1c",
    run="fast-rabbit-1",
    workflow="train",
    variables={"global": {"lr": "0.10"}, "train": {"note": 'it\'s\n"here"', "empty": ""}},
    matrix={"seed": ("1", "2")},
    environment={"LANGUAGE": "de"},
    code=Code(url="git@example.org:a/b.git", branch="main", commit=OID, snapshot=OID, contents={"train": OID}),
    submitted_by="Ada Lovelace <ada@example.org>",
    submitted_at=datetime(2026, 11, 22, 20, 54, 22, tzinfo=UTC),
    options=Options(priority=3, cache=False, tag="best"),
    nonce="77aa",
)
TEXT = f"""\
version: 1
repository: "4f1c"
run: fast-rabbit-1
workflow: train
desired: run
generation: 1
variables:
  global:
    lr: "0.10"
  train:
    note: "it's\\n\\"here\\""
    empty: ""
matrix:
  seed:
    - "1"
    - "2"
environment:
  LANGUAGE: de
code:
  url: "git@example.org:a/b.git"
  branch: main
  commit: "{OID}"
  snapshot: "{OID}"
  contents:
    train: "{OID}"
planner: 1
submitted_by: "Ada Lovelace <ada@example.org>"
submitted_at: "2026-11-22T20:54:22Z"
options:
  priority: 3
  cache: false
  tag: best
nonce: "77aa"
"""


def test_the_text_reads_well_and_never_changes() -> None:
    assert to_text(SPEC, Wanted()) == TEXT
    assert from_text(TEXT.encode()) == (SPEC, Wanted())


def test_what_is_wanted_stands_in_the_same_document() -> None:
    wanted = Wanted(root=OID, desired=Desired.STOP, jobs={"0123456789ab": Desired.ABORT}, generation=2)
    text = to_text(SPEC, wanted)
    assert f'\nroot: "{OID}"\ndesired: stop\njobs:\n  "0123456789ab": abort\ngeneration: 2\n' in text
    assert from_text(text.encode()) == (SPEC, wanted)


def test_times_are_written_in_utc() -> None:
    there = replace(SPEC, submitted_at=SPEC.submitted_at.astimezone(timezone(timedelta(hours=2))))
    assert to_text(there, Wanted()) == TEXT


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_ODD = st.sampled_from(
    [
        "null",
        "~",
        "true",
        "no",
        "y",
        "1e3",
        "0x1",
        "- a",
        "a: b",
        "# x",
        "'",
        "\u2028\x85\ufeff",
        "\r\n",
        "<<",
        "2026-01-01",
    ]
)
_ANY = _TEXT | _ODD
_KEY = _ANY.filter(str.strip)
_NAME = st.from_regex(r"[a-z0-9]([a-z0-9]|-[a-z0-9]){0,8}", fullmatch=True)
_HEX = st.text("0123456789abcdef", min_size=40, max_size=40)
_TRIGGERS = st.builds(
    Trigger,
    event=st.sampled_from(TriggerEvent),
    ref=_ANY,
    before=st.none() | _HEX,
    commit=_HEX,
    slot=st.none() | _ANY,
    key=st.text("0123456789abcdef", min_size=64, max_size=64),
    by=_ANY,
    pull=st.none() | st.integers(1, 10**12),
    fork=st.booleans(),
)
_SPECS = st.builds(
    RunSpec,
    repository=st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    run=_NAME,
    workflow=_NAME,
    variables=st.dictionaries(_KEY, st.dictionaries(_KEY, _ANY, max_size=3), max_size=3),
    matrix=st.dictionaries(_KEY, st.lists(_ANY, max_size=3).map(tuple), max_size=2),
    environment=st.dictionaries(_KEY, _ANY, max_size=3),
    code=st.builds(
        Code,
        url=st.none() | _ANY,
        branch=st.none() | _ANY,
        commit=_HEX,
        snapshot=_HEX,
        contents=st.dictionaries(_ANY, _ANY, max_size=2),
    ),
    submitted_by=_ANY,
    submitted_at=st.datetimes(timezones=st.just(UTC)),
    via=st.sampled_from(Via),
    trigger=st.none() | _TRIGGERS,
    options=st.builds(
        Options, priority=st.integers(-1000, 1000), cache=st.booleans(), tag=st.none() | _ANY, only=st.none() | _NAME
    ),
    nonce=_ANY,
)
_WANTED = st.builds(
    Wanted,
    root=st.none() | _HEX,
    desired=st.sampled_from(Desired),
    jobs=st.dictionaries(
        st.text("0123456789abcdef", min_size=12, max_size=12),
        st.sampled_from([Desired.STOP, Desired.ABORT]),
        max_size=2,
    ),
    generation=st.integers(1, 10**6),
)


def test_what_started_a_run_can_be_read() -> None:
    trigger = Trigger(
        event=TriggerEvent.PULL_REQUEST,
        ref="refs/pull/7/head",
        commit=OID,
        key="0f" * 32,
        by="Ada <ada@example.org>",
        pull=7,
        fork=True,
    )
    text = to_text(replace(SPEC, via=TriggerEvent.PULL_REQUEST.via, trigger=trigger), Wanted())
    shown = f"""\
via: pull-request
trigger:
  event: pull-request
  ref: refs/pull/7/head
  commit: "{OID}"
  key: "{"0f" * 32}"
  by: "Ada <ada@example.org>"
  pull: 7
  fork: true
"""
    assert shown in text
    assert from_text(text.encode())[0].trigger == trigger


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("key: ../x", "trigger.key is '../x', which can't be one"),
        ("commit: main", "trigger.commit is 'main'"),
        ("before: x", "trigger.before is 'x'"),
        ("event: delete", "Invalid enum value 'delete'"),
        ("pull: many", "Expected `int | null`"),
    ],
)
def test_a_trigger_that_makes_no_sense_is_refused(wrong: str, words: str) -> None:
    lines = {"event": "push", "ref": "x", "commit": f'"{OID}"', "key": f'"{"0f" * 32}"'}
    key, _, value = wrong.partition(": ")
    trigger = "".join(f"  {name}: {text}\n" for name, text in {**lines, key: value}.items())
    with pytest.raises(Invalid, match=re.escape(words)):
        from_text(f"{TEXT}trigger:\n{trigger}".encode())


@given(_SPECS, _WANTED)
def test_any_run_is_read_back_exactly(spec: RunSpec, wanted: Wanted) -> None:
    text = to_text(spec, wanted)
    assert from_text(text.encode()) == (spec, wanted)
    assert to_text(*from_text(text.encode())) == text
    assert text.isascii() or all(character.isprintable() or character == "\n" for character in text)


@given(_ANY)
def test_a_text_is_a_text_for_other_readers_of_yaml_too(text: str) -> None:
    assert yaml.safe_load(f"k: {quoted(text)}\n") == {"k": text}


def changed(old: str, new: str) -> bytes:
    assert old in TEXT
    return TEXT.replace(old, new).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "run.yaml:1:1: this is no run"),
        (b"[]", "run.yaml:1:1: this is no run"),
        (b"a: [", "run.yaml:"),
        (b"\xff", "run.yaml:1:1: byte 0xff"),
        (b"#" * (RUN_LIMIT + 1), f"at most {RUN_LIMIT}"),
        (changed("version: 1", "version: 2"), "update dstack"),
        (changed("version: 1", "version: [1]"), "update dstack"),
        (changed("run: fast-rabbit-1", "run: ../x"), "can't name a run"),
        (changed("run: fast-rabbit-1", "run: [a]"), "run.yaml: Expected `str`, got `array` - at `$.run`"),
        (changed("run: fast-rabbit-1\n", ""), "missing required field `run`"),
        (
            changed("run: fast-rabbit-1\n", "run: a\nrun: b\n"),
            "run.yaml:4:1: the key 'run' stands here for the second time",
        ),
        (changed("workflow: train", "workflow: a b"), "can't name a workflow"),
        (changed('"4f1c"', "../x"), "repository is '../x'"),
        (changed(f'commit: "{OID}"', "commit: --upload-pack=x"), "code.commit is '--upload-pack=x'"),
        (changed(f'snapshot: "{OID}"', "snapshot: HEAD"), "code.snapshot is 'HEAD'"),
        (changed("desired: run", "desired: explode"), "Invalid enum value 'explode' - at `$.desired`"),
        (changed("generation: 1", "generation: 0"), "generation is 0; it counts from 1"),
        (changed("generation: 1", "generation: x"), "Expected `int`, got `str` - at `$.generation`"),
        (changed("generation: 1", "generation: '1'"), "Expected `int`, got `str` - at `$.generation`"),
        (changed("generation: 1", "generation: 1\nroot: x"), "root is 'x'"),
        (changed("generation: 1", "generation: 1\njobs: {x: stop}"), "jobs is 'x'"),
        (changed("generation: 1", f"generation: 1\njobs: {{'{OID[:12]}': run}}"), "can be stop or abort"),
        (changed("planner: 1", "planner: 0"), "planner is 0"),
        (changed("priority: 3", "priority: 99999999999"), "options.priority must lie between"),
        (changed("tag: best", "only: controller"), "can't be called 'controller'"),
        (changed("2026-11-22T20:54:22Z", "2026-11-22T20:54:22"), "$.submitted_at"),
        (changed("2026-11-22T20:54:22Z", "2026-99-22T20:54:22Z"), "$.submitted_at"),
        (
            changed("nonce", "via: magic\nnonce"),
            "Invalid enum value 'magic'",
        ),
        (changed("  LANGUAGE: de", '  "": x'), "is empty"),
        (changed("  LANGUAGE: de", '  A: "\\0"'), "run.yaml:18:6: a NUL character"),
        (changed("  LANGUAGE: de", f"  {'A' * 300}: x"), "is too long"),
        (changed("  LANGUAGE: de", "  A: [[[[x]]]]"), "nested too deep"),
        (changed("  LANGUAGE: de", "  A: {b: c}"), "$.environment"),
    ],
)
def test_what_is_odd_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_text(data)
    assert message in str(caught.value)


def test_what_a_later_version_adds_and_plain_values_of_a_person_are_accepted() -> None:
    data = changed('lr: "0.10"', "lr: 0.10") + b"later: {a: [1]}\n"
    assert from_text(data) == (SPEC, Wanted())
    assert from_text(changed("tag: best", "tag: ~"))[0].options.tag is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, run="Bad"), "can't name a run"),
        (replace(SPEC, environment={"A": "\0"}), "NUL"),
        (replace(SPEC, environment={"A": "\udc80"}), "not UTF-8"),
        (replace(SPEC, environment={"A": "x" * RUN_LIMIT}), f"at most {RUN_LIMIT}"),
        (replace(SPEC, environment={"A" * 201: "x"}), "is too long"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(spec: RunSpec, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        to_text(spec, Wanted())


@given(
    st.one_of(
        st.binary(max_size=80),
        st.text("ab:-[]{}&*!'\"# \n\t0", max_size=60).map(lambda text: TEXT.encode() + text.encode()),
    )
)
def test_any_bytes_are_a_run_or_invalid(data: bytes) -> None:
    with contextlib.suppress(Invalid):
        assert from_text(data)[0] == SPEC
