"""YAML text → nodes: what is refused, where, and what scalars mean."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.document import MAX_DOCUMENT, Mapping, Node, Scalar, Sequence, parse_document
from dstack.model.errors import Invalid
from dstack.model.problems import MOST_PROBLEMS, Mark, Problems, nearest, shown


def parse(text: str | bytes) -> Node | None:
    problems = Problems("f.yaml")
    root = parse_document(text.encode() if isinstance(text, str) else text, problems)
    problems.check()
    return root


def plain(node: Node | None) -> object:
    match node:
        case Scalar(text=text):
            return text
        case Sequence(items=items):
            return [plain(item) for item in items]
        case Mapping(entries=entries):
            return {key.text: plain(value) for key, value in entries}
        case None:
            return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("# only a comment\n", None),
        ("\ufeffa: 1", {"a": "1"}),
        ("a: 3.10\nb: [on, 010]", {"a": "3.10", "b": ["on", "010"]}),
        ("a: &x {k: 1}\nb: *x", {"a": {"k": "1"}, "b": {"k": "1"}}),
        ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", {"a": {"k": "1", "l": "2"}, "b": {"k": "3", "l": "2"}}),
        (
            "a: &x {k: 1}\nb: &y {k: 2, l: 2}\nc: {<<: [*x, *y]}",
            {"a": {"k": "1"}, "b": {"k": "2", "l": "2"}, "c": {"k": "1", "l": "2"}},
        ),
        ("a: '<<'\n'<<': 1", {"a": "<<", "<<": "1"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": "1"}),
    ],
)
def test_what_is_read(text: str, expected: object) -> None:
    assert plain(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "'a' stands here for the second time (first in line 1)"),
        ("a: [1, 2\n", "2:1", "did not find expected ',' or ']'"),
        ("a: b: c", "1:5", "mapping values are not allowed"),
        ("a:\n\t- b", "2:1", "indent with blanks"),
        ("a: 1\n---\nb: 2", "2:1", "a second document"),
        ("a: *x", "1:4", "no anchor '&x'"),
        ("a: &x [*x]", "1:8", "inside its own anchor"),
        ("a: !!python/object:os.system x", "1:4", "the tag"),
        ("a: !x b", "1:4", "the tag"),
        ("{[a]: b}", "1:2", "a key must be a word"),
        ("<<: 3", "1:1", "'<<' takes a mapping"),
        ('a: "\\0"', "1:4", "NUL"),
        ("é: \x01", "1:4", "control character 0x01"),
        ("a: \x00", "1:4", "control character 0x00"),
        (b"ab: \xff", "1:5", "byte 0xff is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1", "is not UTF-8"),
        ("[" * 60, "1:52", "nested more than 50 deep"),
        ("[" * 500_000, "1:52", "nested more than 50 deep"),
        ("- " * 60 + "a", "1:103", "nested more than 50 deep"),
        (b"#" * (MAX_DOCUMENT + 1), "1:1", f"at most {MAX_DOCUMENT}"),
    ],
)
def test_what_is_refused_and_where(text: str | bytes, where: str, words: str) -> None:
    with pytest.raises(Invalid, match=f"^f.yaml:{where}: .*{re.escape(words)}"):
        parse(text)


def test_an_alias_bomb_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    tracemalloc.start()
    with pytest.raises(Invalid, match="aliases up to here stand for more than"):
        parse("\n".join(lines))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_several_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(Invalid) as caught:
        parse("a: !x 1\nb: 1\nb: 2\na: 3\n")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "f.yaml:1:4:",
        "f.yaml:3:1:",
        "f.yaml:4:1:",
    ]


def test_too_many_problems_end_the_reading() -> None:
    with pytest.raises(Invalid) as caught:
        parse("a: 1\n" * 1000)
    assert len(str(caught.value).splitlines()) == MOST_PROBLEMS


@pytest.mark.parametrize(
    ("text", "null", "boolean", "integer", "number"),
    [
        ("true", False, True, None, None),
        ("FALSE", False, False, None, None),
        ("on", False, None, None, None),
        ("yes", False, None, None, None),
        ("'true'", False, None, None, None),
        ("~", True, None, None, None),
        ("null", True, None, None, None),
        ('""', False, None, None, None),
        ("010", False, None, 10, 10.0),
        ("-3", False, None, -3, -3.0),
        ("1_000", False, None, None, None),
        ("1:30", False, None, None, None),
        ("3.10", False, None, None, 3.1),
        ("1e3", False, None, None, 1000.0),
        (".5", False, None, None, 0.5),
        ("'3'", False, None, None, None),
        ("9" * 400, False, None, None, float("inf")),
        ("٣", False, None, None, None),
    ],
)
def test_what_a_plain_scalar_means(
    text: str, *, null: bool, boolean: bool | None, integer: int | None, number: float | None
) -> None:
    node = parse(text)
    assert isinstance(node, Scalar)
    assert (node.null, node.boolean, node.integer, node.number) == (null, boolean, integer, number)


@given(st.one_of(st.binary(max_size=60), st.text("ab:-[]{}&*!|>'\"#%@, \n\t\0é~<?", max_size=60).map(str.encode)))
def test_any_bytes_are_a_tree_or_a_message_with_its_place(data: bytes) -> None:
    try:
        plain(parse(data))
    except Invalid as error:
        for line in str(error).splitlines():
            assert re.match(r"f\.yaml:[1-9]\d*:[1-9]\d*: ", line)


def test_marks_count_characters_from_one() -> None:
    root = parse("äöü: {x: 1}\n")
    assert isinstance(root, Mapping)
    assert root.entries[0][1].mark == Mark(1, 6)


def test_messages_are_short_and_in_one_line() -> None:
    assert shown("a\n\x1b") == "'a\\n\\x1b'"
    assert len(shown("x" * 10_000)) < 100


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trian", " (did you mean 'train'?)"),
        ("Batch_Size", " (did you mean 'batch-size'?)"),
        ("zzz", ""),
        ("x" * 10_000, ""),
    ],
)
def test_the_nearest_word_is_suggested(word: str, expected: str) -> None:
    assert nearest(word, ["train", "evaluate", "batch-size"]) == expected
