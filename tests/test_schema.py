"""The JSON Schemas for editors say what the readers do: of random documents, and but for a list that is documented."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from dstack.model import language
from dstack.model.errors import Invalid
from dstack.model.schema import config_schema, variables_schema, workflows_schema
from dstack.model.settings import Settings, parse_settings
from dstack.model.variables import parse_variables
from dstack.model.workflows import parse_workflows

DOCS = Path(__file__).parent.parent / "docs"
WORKFLOWS = Draft7Validator(workflows_schema())
VARIABLES = Draft7Validator(variables_schema())
CONFIG = Draft7Validator(config_schema())

# What only the reader says of a workflow: by words of its messages. docs/editors.md tells users.
ONLY_THE_READER = (
    r"there is (no|a) workflow|wait for each other|second time|same artifacts|already|one and the same|a value twice",
    r"can't be at one place|have artifacts at one place|not among the artifacts|at two intervals",
    r"looks like a secret|set by dstack itself|it would replace|both a secret|what the matrix name|differ in upper",
    r"`include` names|`exclude` names|`exclude` leaves out of lists|a value for every name",
    r"only with an `image`|can't take the place|inside `\.git`|aren't replaced|whole file system|can't be a glob",
    r"at least (6291456 bytes|1s|1 bytes)|longer than|can't be the name of a GPU|GPUs of one kind|can't be a label",
    r"can't be a tag|can't name a workflow|use 1 to 63|a whole number from",
    r"only take back|can't be a pattern|don't apply to tags|a trigger has no environment",
    r"is no time zone|can't be cron|a day that none|can't be the (minute|hour|day|month)",
)

SCALARS = st.sampled_from([None, True, 0, 1, 3, 2.5, -1, "", " ", "a", "b", "3", "x y"])
DURATIONS = st.sampled_from(["90s", "2h30m", "1.5h", "1d 2h", "5ms", "0s", "90", "2h3h", "1m1h", "h", "", "400d", 90])
SIZES = st.sampled_from(["512MiB", "32GB", "1.5 tb", "1B", "5", "GB", "1XB", 5, "-1GB", "10Gi"])
PATHS = st.sampled_from(
    ["data", "a/b", "./x/", "/out", "../x", "a/../b", "~/x", "*.py", "a**", "", ".", "..", ".git/x", 3]
)
WORDS = st.sampled_from(["sh", "bash", "always", "missing", "fish", "exit", "lost", "ok", "latest", "true", "Bash"])
NAMES = st.sampled_from(["a", "b", "lr", "LR", "HF_TOKEN", "a-b", "x.y", "1a", "a b", "é", "path", "", "DSTACK_X"])
NEEDS = st.sampled_from(["a", "b", "b:v1", "b:", "a:.x", "B", "b:v1:2", "w--x", 1, "a b", "c:latest"])


def some(of: st.SearchStrategy[object], most: int = 3) -> st.SearchStrategy[object]:
    return st.lists(of, max_size=most)


def mapping(keys: dict[str, st.SearchStrategy[object]]) -> st.SearchStrategy[object]:
    """Some of these keys, now and then with one that isn't known, or something else altogether."""
    drawn = st.fixed_dictionaries({}, optional={**keys, "unknown": st.none()} if keys else {})
    clean = st.fixed_dictionaries({}, optional=keys)
    return st.one_of(clean, clean, clean, drawn, SCALARS)


PATTERNS = st.sampled_from(
    [
        "**",
        "*",
        "main",
        "!main",
        "v*",
        "feature/**",
        "!!x",
        "!",
        "/x",
        "a/../b",
        "refs/heads/x",
        "a**",
        "[",
        "~x",
        3,
        "",
    ]
)
LISTED = st.one_of(PATTERNS, some(PATTERNS), st.none())
PUSH = mapping({"branches": LISTED, "tags": LISTED, "paths": LISTED})
CRON = st.sampled_from(["0 3 * * *", "@daily", "@often", "* * * *", "61 * * * *", "0 0 31 2 *", " 0 0 1 1 sun ", 5, ""])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Europe/Berlni", "localtime", "../UTC", "a b", "", 3])
SCHEDULE = st.one_of(CRON, mapping({"cron": CRON, "zone": ZONES}))
TRIGGER = st.sampled_from(["push", "pull-request", "schedule", "Push", "tag", "", 1, None])
WRITTEN_OUT = {
    "push": st.one_of(PUSH, some(PUSH)),
    "pull-request": st.one_of(PUSH, some(PUSH)),
    "schedule": st.one_of(SCHEDULE, some(SCHEDULE)),
}
ON = st.one_of(TRIGGER, some(TRIGGER), *[mapping(WRITTEN_OUT)] * 3)
COMBINATIONS = some(st.dictionaries(NAMES, SCALARS, max_size=2))
GPU = mapping({"count": SCALARS, "name": SCALARS, "memory": SIZES})
KEYS: dict[str, st.SearchStrategy[object]] = {
    "help": SCALARS,
    "image": st.sampled_from(["python:3.12", "a b", "-x", "ghcr.io/x/y@sha256:0", 3, ""]),
    "pull": WORDS,
    "shell": WORDS,
    "depends-on": st.one_of(
        some(NEEDS), mapping({"workflows": some(NEEDS), "repo": mapping({"include": some(PATHS)})})
    ),
    "artifacts": some(st.one_of(PATHS, mapping({"path": PATHS, "save": DURATIONS}))),
    "metrics": some(PATHS),
    "resources": mapping(
        {"cpu": st.one_of(SCALARS, mapping({"count": SCALARS})), "memory": SIZES, "shm-size": SIZES}
        | {"gpu": st.one_of(SCALARS, GPU), "V100/gpu": SCALARS, "interruptible": SCALARS}
    ),
    "env": st.one_of(st.dictionaries(NAMES, SCALARS, max_size=3), some(st.one_of(NAMES, NAMES.map("{}=x".format)))),
    "secrets": some(NAMES),
    "volumes": some(st.sampled_from(["d:x", "d:/data:ro", "D:y", "d", "d:", "d:x:rw", "a b:x", ":x", "d:x:ro:", 3])),
    "cache-dirs": some(PATHS),
    "working-dir": PATHS,
    "timeout": DURATIONS,
    "stop-grace": DURATIONS,
    "retry": st.one_of(SCALARS, mapping({"attempts": SCALARS, "on": some(WORDS), "backoff": DURATIONS})),
    "matrix": st.builds(
        lambda lists, more: {**lists, **more},
        st.dictionaries(NAMES, some(SCALARS), max_size=2),
        st.fixed_dictionaries({}, optional={"include": COMBINATIONS, "exclude": COMBINATIONS}),
    ),
    "max-parallel": SCALARS,
    "cache": SCALARS,
    "labels": some(SCALARS),
    "on": ON,
}
ONE = st.builds(
    lambda name, commands, more, odd: {"name": name, "commands": commands, **more, **odd},
    st.sampled_from(["a", "a", "a", "a", "train-2", "global", "A", "a_b", "", 1, None]),
    st.one_of(st.just("x"), st.just(["x"]), some(SCALARS), SCALARS),
    st.dictionaries(st.sampled_from(list(KEYS)), st.none(), max_size=3).flatmap(
        lambda keys: st.fixed_dictionaries({key: KEYS[key] for key in keys})
    ),
    st.sampled_from([{}, {}, {}, {}, {}, {"unknown": 1}]),
)
FILES = st.one_of(
    *[ONE.map(lambda one: {"workflows": [one, {"name": "b", "commands": "x", "artifacts": ["data"]}]})] * 5,
    st.sampled_from([{}, {"workflows": []}, {"workflows": None}, [], {"workflows": {}}, {"workflows": [3]}]),
)


def refusals(text: str) -> list[str]:
    try:
        parse_workflows(text.encode(), path="w")
    except Invalid as error:
        return [line.partition(" ")[2] for line in str(error).splitlines()]
    return []


def test_every_key_has_a_form_and_a_reader() -> None:
    assert set(KEYS) | {"name", "commands"} == set(language.WORKFLOW)
    for schema in (WORKFLOWS, VARIABLES, CONFIG):
        schema.check_schema(schema.schema)


def check_agreement(tree: object) -> None:
    found = refusals(json.dumps(tree))
    wrong = [error.message for error in WORKFLOWS.iter_errors(tree)]
    if not found:
        assert not wrong, "the reader takes it"
    elif not wrong:
        unsaid = [line for line in found if not any(re.search(words, line) for words in ONLY_THE_READER)]
        assert not unsaid, "the schema takes it"


@settings(max_examples=200)
@given(FILES)
def test_schema_and_reader_agree_on_workflows(tree: object) -> None:
    check_agreement(tree)


@settings(max_examples=150)
@given(ON)
def test_schema_and_reader_agree_on_triggers(on: object) -> None:
    check_agreement({"workflows": [{"name": "a", "commands": "x", "on": on}]})


NONE = parse_workflows(b"workflows: [{name: a, commands: [x]}]")
SECTIONS = st.dictionaries(
    st.sampled_from(["a", "global", "b", "A", "é"]),
    st.one_of(st.dictionaries(NAMES, st.one_of(SCALARS, some(SCALARS, 1)), max_size=3), SCALARS, st.none()),
    max_size=3,
)


@given(st.one_of(SECTIONS.map(lambda found: {"variables": found}), SCALARS, st.just({"other": 1}), SECTIONS))
def test_schema_and_reader_agree_on_variables(tree: object) -> None:
    found: list[str] = []
    try:
        parse_variables(json.dumps(tree).encode(), NONE, path="v")
    except Invalid as error:
        found = str(error).splitlines()
    wrong = [error.message for error in VARIABLES.iter_errors(tree)]
    if not found:
        assert not wrong, "the reader takes it"
    elif not wrong:
        said = r"there is no workflow|one and the same|set by dstack itself|it would replace"
        assert all(re.search(said, line) for line in found), "the schema takes it"


@given(
    st.dictionaries(
        st.sampled_from([*Settings.__struct_fields__, "unknown"]),
        st.one_of(SCALARS, st.sampled_from(["forge", "file:///x", 0.5, 90000, {"a": "b"}, {"a": 1}])),
        max_size=3,
    )
)
def test_schema_and_reader_agree_on_settings(tree: dict[str, object]) -> None:
    wrong = [error.message for error in CONFIG.iter_errors(tree)]
    try:
        parse_settings(json.dumps(tree).encode())
    except Invalid:
        return
    assert not wrong, "the reader takes it"


@pytest.mark.parametrize(
    "tree", [{"store": 3}, {"lease": 0.5}, {"throttle": "x"}, {"unknown": 1}, {"stores": {"a": 1}}]
)
def test_a_wrong_setting_is_refused_by_both(tree: dict[str, object]) -> None:
    assert list(CONFIG.iter_errors(tree))
    with pytest.raises(Invalid):
        parse_settings(json.dumps(tree).encode())


def test_keys_and_settings_are_described() -> None:
    properties = config_schema()["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == set(Settings.__struct_fields__)
    assert set(language.SETTINGS) <= set(properties)
    workflow = workflows_schema()["properties"]["workflows"]["items"]["properties"]  # type: ignore[index]
    assert all(form["description"].endswith(".") for form in workflow.values())
