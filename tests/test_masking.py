"""Secrets in output: hidden wherever the pieces are cut, and nothing else is."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runner.masking import LEAST, Masker, needles

TEXT = st.text(alphabet="abc\n", min_size=0, max_size=60)
SECRET = st.text(alphabet="abc", min_size=LEAST, max_size=9)


def masked(text: str, secrets: list[str], cuts: list[int], *, flushed: bool = False) -> bytes:
    """What comes out where the text comes in pieces, with a flush behind each if `flushed`."""
    masker, data, out = Masker(needles(secrets)), text.encode(), b""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        out += masker.feed(data[start:end])
        if flushed:
            out += masker.flush()
            assert masker.held == 0
    return out + masker.flush()


def covered(text: str, secrets: list[str]) -> str:
    """The same by a plain look at the whole text."""
    shown = list(text)
    for secret in secrets:
        for match in re.finditer(f"(?={re.escape(secret)})", text):
            shown[match.start() : match.start() + len(secret)] = "*" * len(secret)
    return "".join(shown)


@given(TEXT, st.lists(SECRET, max_size=4), st.lists(st.integers(0, 100), max_size=8))
def test_however_it_is_cut_every_secret_is_hidden_and_nothing_else(
    text: str, secrets: list[str], cuts: list[int]
) -> None:
    assert masked(text, secrets, cuts).decode() == covered(text, secrets)


@given(TEXT, st.lists(SECRET, max_size=4), st.lists(st.integers(0, 100), max_size=8))
def test_behind_a_flush_the_rest_of_a_secret_is_hidden_and_no_offset_changes(
    text: str, secrets: list[str], cuts: list[int]
) -> None:
    shown, whole = masked(text, secrets, cuts, flushed=True).decode(), covered(text, secrets)
    assert len(shown) == len(text)
    assert all(one in (before, "*") for one, before in zip(shown, text, strict=True))
    assert all(other == "*" for one, other in zip(shown, whole, strict=True) if one == "*")
    assert not any(secret in shown for secret in secrets)


def test_what_is_no_beginning_of_a_secret_is_not_held_back() -> None:
    masker = Masker(needles(["hunter2", "swordfish"]))
    assert masker.feed(b"loading 45%\r") == b"loading 45%\r"
    assert masker.feed(b"the password is hunt") == b"the password is "
    assert masker.held == 4
    assert masker.feed(b"ing season\n") == b"hunting season\n"


def test_the_longest_is_hidden_whole_and_one_within_another_too() -> None:
    assert masked("x hunter2-long y hunter2 z", ["hunter2", "hunter2-long"], []) == b"x ************ y ******* z"
    assert masked("abcdefg", ["abcde", "cdefg"], [3]) == b"*******"


def test_a_key_of_several_lines_is_hidden_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIB\nADANBgkq\n-----END KEY-----\n"
    assert b"MIIE" not in masked(f"first\n{key}MIIEvQIB alone", [key], [9, 30])
    assert masked("MIIEvQIB alone", [key], []) == b"******** alone"


def test_what_is_too_short_is_not_looked_for() -> None:
    assert needles(["abc", "", "  ", "abcd"]) == (b"abcd",)
    assert masked("abc abcd", ["abc"], []) == b"abc abcd"
