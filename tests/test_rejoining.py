"""A log read again, by an engine that was killed: nothing is missed, and nothing comes twice."""

from hypothesis import given
from hypothesis import strategies as st

from runner.rejoining import LONG, News, Rejoining


def read(log: bytes, skip: int, known: bytes, size: int = 3) -> tuple[bytes, int]:
    """What is new, when the log comes in pieces of this size."""
    stream = Rejoining(skip, known)
    found = [stream.feed(log[at : at + size]) for at in range(0, len(log), size)]
    return b"".join(news.data for news in found), sum(news.lost for news in found)


SIZES = st.integers(1, 50)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 80), SIZES)
def test_a_whole_log_gives_what_comes_after(seen: bytes, later: bytes, window: int, size: int) -> None:
    assert read(seen + later, len(seen), seen[-window:] if window else b"", size) == (later, 0)


@given(st.binary(max_size=60), st.integers(0, 60), SIZES)
def test_a_log_that_lags_gives_nothing(seen: bytes, cut: int, size: int) -> None:
    assert read(seen[:cut], len(seen), seen, size) == (b"", 0)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.binary(max_size=9), SIZES)
def test_lines_that_the_engine_lost_cost_no_later_ones(
    kept: int, lost: int, later: int, half: bytes, size: int
) -> None:
    """Numbered lines: no two are alike. The last one that was seen may be unfinished."""
    lines = [b"line %d\n" % number for number in range(kept + lost + later)]
    half = half.replace(b"\n", b"")
    before, gone = b"".join(lines[:kept]), b"".join(lines[kept : kept + lost]) + (b"~" + half if half else b"")
    after = b"".join(lines[kept + lost :])
    assert read(before + after, len(before + gone), before + gone, size) == (after, len(gone))


def test_what_the_end_of_a_lost_line_and_the_next_have_in_common_is_no_proof() -> None:
    assert read(b"a\nloaded\n", 9, b"a\nloading") == (b"loaded\n", 7)
    assert Rejoining().feed(b"new") == News(b"new")


def test_the_newline_that_docker_drops_after_a_long_line_costs_nothing() -> None:
    long = b"x" * LONG
    seen, later = b"a\n" + long + b"\nb\n" + long + b"\n", b"c\nd\n"
    log = seen.replace(long + b"\n", long) + later
    for size in (1000, LONG, 10 * LONG):
        assert read(log, len(seen), seen, size) == (later, 0)
        assert read(seen + later, len(seen), seen, size) == (later, 0)


def test_where_nothing_fits_the_number_counts() -> None:
    assert read(b"abcdefgh" + b"new\n", 8, b"xyz") == (b"new\n", 0)
