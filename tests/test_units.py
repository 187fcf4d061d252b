"""Durations and sizes: what people write, and what is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from dstack.model.units import MAX_BYTES, duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("2h30m", 9000),
        ("2h 30m", 9000),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1d", 86400),
        ("0s", 0),
        ("5 m", 300),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "s", "1m1h", "1h1h", "-1s", "1y", "1h x", "1e3s", "400d", "٣s", "nan s", "9" * 500 + "s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Invalid, match=r"duration|longer"):
        parse_duration(text)


@given(st.integers(0, 365 * 86_400_000))
@example(365 * 86_400_000 - 1)
def test_durations_round_trip(milliseconds: int) -> None:
    assert round(parse_duration(duration_text(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32GB", 32 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("10 kb", 10_000),
        ("7B", 7),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "512", "5G", "5Gi", "-1GB", "1e3MB", "GB", "1 000MB", "2000PiB", "٣GB", "9" * 500 + "GB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid, match=r"size|machine"):
        parse_size(text)


@given(st.one_of(st.integers(0, MAX_BYTES), st.integers(0, 1000).map(lambda n: n * 2**30)))
@example(MAX_BYTES - 1)
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(size_text(size)) == size
