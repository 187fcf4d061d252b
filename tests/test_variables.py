"""variables.yaml: sections, precedence, and what is refused."""

import pytest

from dstack.model.errors import Invalid
from dstack.model.names import MAX_VALUE
from dstack.model.variables import Variables, parse_variables
from dstack.model.workflows import Workflows, parse_workflows

WORKFLOWS = b"""
workflows:
- {name: prepare, commands: [x]}
- {name: clean, commands: [x]}
- name: train
  commands: [x]
  depends-on: [prepare, clean]
  matrix: {learning-rate: [0.1, 0.10], seed: [1]}
  env: [MODE=x, low=y]
  secrets: [HF_TOKEN]
- {name: other, commands: [x]}
"""
VARIABLES = b"""
variables:
  global: {epochs: 3, shared: g, dup: g}
  train: {epochs: 010, batch-size: 8}
  prepare: {size: 1, both: p, dup: p}
  clean: {both: c, dup: c}
  other: {far: 1}
"""


def workflows() -> Workflows:
    return parse_workflows(WORKFLOWS)


def parse(text: str) -> Variables:
    return parse_variables(text.encode(), workflows(), path="v.yaml")


def test_a_section_stands_over_global_and_texts_stay_as_typed() -> None:
    found = parse_variables(VARIABLES, workflows())
    assert found.of("train") == {"epochs": "010", "shared": "g", "dup": "g", "batch-size": "8"}
    assert found.of("unknown") == {"epochs": "3", "shared": "g", "dup": "g"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", "on"),
        ("3.10", "3.10"),
        ("1e-3", "1e-3"),
        ("true", "true"),
        ("''", ""),
        ("'null'", "null"),
        ("|\n      a\n      b\n", "a\nb\n"),
        ("0x1F", "0x1F"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_every_scalar_is_the_text_that_was_typed(text: str, expected: str) -> None:
    assert parse(f"variables:\n  global:\n    v: {text}\n").of("train") == {"v": expected}


@pytest.mark.parametrize(
    "text", [None, b"", b"# nothing\n", b"variables:\n", b"variables: {}", b"variables: {global: }"]
)
def test_no_variables_are_none(text: bytes | None) -> None:
    assert parse_variables(text, workflows()).of("train") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("global: {a: 1}", "v.yaml:1:1: unknown key 'global' in the file; known are variables"),
        ("[]", "v.yaml:1:1: the file must be a mapping"),
        ("variables: [a]", "v.yaml:1:12: `variables` must be a mapping"),
        (
            "variables: {trian: {a: 1}}",
            "v.yaml:1:13: there is no workflow 'trian' for this section (did you mean 'train'?)",
        ),
        (
            "variables: {globl: {a: 1}}",
            "v.yaml:1:13: there is no workflow 'globl' for this section (did you mean 'global'?)",
        ),
        ("variables: {train: 3}", "v.yaml:1:20: the section 'train' must be a mapping"),
        ("variables: {train: {a: [1]}}", "v.yaml:1:24: variable 'a' must be a text, not a list"),
        ("variables: {train: {a: }}", "v.yaml:1:21: variable 'a' has no value"),
        ("variables: {train: {a b: 1}}", "v.yaml:1:21: variable 'a b': use a letter"),
        ("variables: {train: {é: 1}}", "v.yaml:1:21: variable 'é': use a letter"),
        ("variables: {train: {path: 1}}", "v.yaml:1:21: variable 'path': it would replace $PATH"),
        ("variables: {train: {home: 1}}", "v.yaml:1:21: variable 'home': it would replace $HOME"),
        (
            "variables: {train: {dstack-run: 1}}",
            "v.yaml:1:21: variable 'dstack-run': $DSTACK_RUN is set by dstack itself",
        ),
        ("variables: {train: {run_name: 1}}", "v.yaml:1:21: variable 'run_name': $RUN_NAME is set by dstack itself"),
        ("variables: {train: {job-id: 1}}", "v.yaml:1:21: variable 'job-id': $JOB_ID"),
        ("variables: {train: {variables_as_args: 1}}", "v.yaml:1:21: variable 'variables_as_args': $VARIABLES_AS_ARGS"),
        ("variables: {train: {a: 1, a: 2}}", "v.yaml:1:27: the key 'a' stands here for the second time"),
        ("variables: {train: {a-b: 1, a_b: 2}}", "v.yaml:1:29: variables 'a-b' and 'a_b' (train) are one and the same"),
        ("variables: {global: {a: 1, A: 2}}", "v.yaml:1:28: variables 'a' and 'A' (global) are one and the same"),
        ("variables: {global: {a.b: 1}, train: {a_b: 2}}", "v.yaml:1:39: variables 'a.b' and 'a_b' (global and train)"),
        ("variables: {train: {seed: 1}}", "v.yaml:1:21: 'seed' is a matrix name of workflow 'train'"),
        (
            "variables: {global: {learning_rate: 1}}",
            "v.yaml:1:22: variables 'learning-rate' and 'learning_rate' (the matrix of train)",
        ),
        ("variables: {global: {mode: 1}}", "v.yaml:1:22: `env` of workflow 'train' sets MODE"),
        ("variables: {train: {low: 1}}", "v.yaml:1:21: `env` of workflow 'train' sets low"),
        ("variables: {train: {hf-token: 1}}", "v.yaml:1:21: HF_TOKEN is one of the `secrets` of workflow 'train'"),
        ("variables: {global: {HF_TOKEN: 1}}", "v.yaml:1:22: HF_TOKEN is one of the `secrets` of workflow 'train'"),
        ('variables: {train: {a: "\\0"}}', "v.yaml:1:24: a NUL character"),
        (
            "variables: {train: {a: " + "x" * (MAX_VALUE + 1) + "}}",
            "v.yaml:1:24: variable 'a': the value has 100001 bytes",
        ),
    ],
)
def test_what_is_refused_and_where(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert any(line.startswith(message) for line in str(caught.value).splitlines()), str(caught.value)


def test_a_global_of_a_matrix_name_is_no_clash_the_matrix_stands_over_it() -> None:
    assert parse("variables: {global: {seed: 1, other: 2}}").of("train") == {"seed": "1", "other": "2"}
