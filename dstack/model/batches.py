"""Many things, some at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """All of them in order, at most `size` at once; no more is taken than is asked for."""
    left = iter(items)
    while some := tuple(islice(left, size)):
        yield some
