"""What flags of `dstack run` mean: sections, matrices, and lists of values."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.choices import Choices, Flags, split_values
from dstack.model.errors import Invalid
from dstack.model.variables import parse_variables
from dstack.model.workflows import parse_workflows

WORKFLOWS = parse_workflows(b"""
workflows:
- {name: fetch-data, commands: [x], matrix: {part: [a, b], mine: [1]}}
- {name: prepare, commands: [x], depends-on: [fetch-data]}
- name: train
  commands: [x]
  depends-on: [prepare]
  matrix: {learning-rate: [0.1, 0.10], seed: [1], include: [{seed: 2, learning-rate: 7}]}
- {name: other, commands: [x]}
""")
VARIABLES = parse_variables(
    b"""
variables:
  global: {epochs: 3, shared: g, dup: g}
  train: {epochs: 010, batch-size: 8, a.b: ''}
  prepare: {size: 1, both: p, dup: p, a.b: 2}
  fetch-data: {both: c, dup: c, url: 'http://x'}
  other: {far: 1}
""",
    WORKFLOWS,
)
FLAGS = Flags(WORKFLOWS, VARIABLES, "train")


def choices(*given: str, sweeps: tuple[str, ...] = ()) -> Choices:
    pairs = [[(name, value) for name, _, value in (one.partition("=") for one in some)] for some in (given, sweeps)]
    return FLAGS.choose(*pairs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("epochs", "train.epochs"),
        ("batch_size", "train.batch-size"),
        ("size", "prepare.size"),
        ("shared", "global.shared"),
        ("dup", "global.dup"),
        ("prepare.dup", "prepare.dup"),
        ("global.epochs", "global.epochs"),
        ("fetch_data.url", "fetch-data.url"),
        ("url", "fetch-data.url"),
        ("learning_rate", "train.learning-rate"),
        ("part", "fetch-data.part"),
        ("a.b", "train.a.b"),
        ("prepare.a.b", "prepare.a.b"),
    ],
)
def test_what_a_flag_means(name: str, expected: str) -> None:
    assert FLAGS.find(name).full == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", "workflow 'train' has no variable 'epoch' (did you mean 'epochs'?)"),
        ("far", "workflow 'train' has no variable 'far'"),
        ("both", "'both' is a variable of prepare, fetch-data: write --prepare.both or --fetch-data.both"),
        ("prepare.sizes", "has no variable 'prepare.sizes' (did you mean 'prepare.size'?)"),
        ("zzz", ": add it to .dstack/variables.yaml"),
        ("leaning-rate", "(did you mean 'learning-rate'?)"),
    ],
)
def test_what_a_flag_can_not_mean(name: str, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        FLAGS.find(name)


def test_all_flags_the_nearest_first_and_which_are_clear_by_name() -> None:
    assert [flag.full for flag in FLAGS.all()] == [
        *("train.learning-rate", "train.seed", "train.epochs", "train.batch-size", "train.a.b"),
        *("global.epochs", "global.shared", "global.dup"),
        *("prepare.size", "prepare.both", "prepare.dup", "prepare.a.b"),
        *("fetch-data.part", "fetch-data.mine", "fetch-data.both", "fetch-data.dup", "fetch-data.url"),
    ]
    unclear = ["global.epochs", "prepare.both", "prepare.dup", "prepare.a.b", "fetch-data.both", "fetch-data.dup"]
    assert [flag.full for flag in FLAGS.all() if not flag.plain] == unclear
    assert FLAGS.all()[0].values == ("0.1", "0.10", "7")
    assert FLAGS.all()[2].default == "010"


def test_values_are_kept_as_typed_and_the_later_counts() -> None:
    found = choices("epochs=1", "epochs=1e3", "size= x ", "shared=")
    assert found.variables == {"train": {"epochs": "1e3"}, "prepare": {"size": " x "}, "global": {"shared": ""}}


def test_a_flag_selects_values_of_a_matrix() -> None:
    assert choices("learning_rate=0.10").matrix == {"learning-rate": ("0.10",)}
    assert choices("part=b").sweeps == {"fetch-data": {"part": ("b",)}}
    assert choices(sweeps=("learning-rate=7,0.1",)).matrix == {"learning-rate": ("0.1", "7")}
    assert choices(sweeps=("fetch_data.part=b",)) == choices("part=b")


def test_lists_make_a_matrix_of_a_variable() -> None:
    assert choices(sweeps=("batch_size=8,16",)).sweeps == {"train": {"batch-size": ("8", "16")}}
    assert choices(sweeps=("shared=1", "prepare.size=5", "shared=2")).sweeps == {
        "global": {"shared": ("1", "2")},
        "prepare": {"size": ("5",)},
    }


@pytest.mark.parametrize(
    ("given", "sweeps", "message"),
    [
        (("learning-rate=0.2",), (), "learning-rate of workflow 'train' takes '0.1', '0.10', '7'; not '0.2'"),
        (("part=z",), (), "part of workflow 'fetch-data' takes 'a', 'b'; not 'z'"),
        (("epochs=a\0b",), (), "--epochs: a NUL character"),
        (("epochs=\udc80",), (), "--epochs: the value is not UTF-8"),
        (("epochs=1",), ("epochs=1,2",), "epochs is set by a flag of its own and by --matrix: give it once"),
        (("seed=1",), ("seed=1,2",), "seed is set by a flag of its own and by --matrix: give it once"),
        ((), ("epochs=1,1",), "--matrix epochs: a value stands there twice"),
        ((), ("seed=3",), "seed of workflow 'train' takes '1', '2'; not '3'"),
        ((), ("epochs=",), "--matrix epochs= has an empty value"),
        ((), ("epochs=1,,2",), "--matrix epochs=1,,2 has an empty value"),
        ((), ('epochs="1',), 'a " that opens a value has none that closes it'),
        ((), ('epochs="1"2',), "behind the quoted value '1' a comma must follow"),
        ((), ("epoch=1",), "has no variable 'epoch'"),
    ],
)
def test_what_can_not_be_chosen(given: tuple[str, ...], sweeps: tuple[str, ...], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        choices(*given, sweeps=sweeps)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,1e-2", ("0.1", "1e-2")),
        ("a b, c", ("a b", " c")),
        ('"a,b",c', ("a,b", "c")),
        ('"",x', ("", "x")),
        ('"say ""hi"""', ('say "hi"',)),
        ('5" disk,x', ('5" disk', "x")),
        ("one\ntwo", ("one\ntwo",)),
    ],
)
def test_values_between_commas(text: str, values: tuple[str, ...]) -> None:
    assert split_values("x", text) == values


@given(st.lists(st.text('ab," \n', max_size=5), min_size=1, max_size=4))
def test_what_is_quoted_is_read_back(values: list[str]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="").writerow(values)
    assert list(split_values("x", written.getvalue())) == values
