"""Many items at once: all of them, or the first error, whatever its kind."""

import threading
from collections.abc import Iterator

import pytest

from dstack.store.parallel import each


def test_every_item_is_dealt_with_once_by_no_more_than_so_many() -> None:
    lock, done, now, most = threading.Lock(), list[int](), 0, 0

    def work(item: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        done.append(item)
        with lock:
            now -= 1

    each(iter(range(500)), work, width=4)
    assert sorted(done) == list(range(500))
    assert most <= 4


@pytest.mark.parametrize("kind", [OSError, StopIteration, KeyboardInterrupt])
def test_the_first_error_stops_the_rest_and_is_raised(kind: type[BaseException]) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10_000):
            taken.append(item)
            yield item

    def work(item: int) -> None:
        if item == 20:
            raise kind

    with pytest.raises(kind):
        each(items(), work, width=3)
    assert len(taken) < 10_000


def test_items_that_can_not_be_had_are_an_error() -> None:
    def items() -> Iterator[int]:
        yield 1
        msg = "no more"
        raise OSError(msg)

    with pytest.raises(OSError, match="no more"):
        each(items(), lambda _item: None, width=3)
