"""Does one thing to many items, in several threads at once. The threads are daemons: what hangs keeps nobody."""

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


def each(items: Iterable[T], work: Callable[[T], None], *, width: int) -> None:
    """Call `work` with every item, at most `width` at once. The first error stops the rest and is raised.

    Items are taken as they are needed, by one thread at a time. It returns when no call runs any more.
    """
    crew = _Crew(iter(items), work)
    threads = [threading.Thread(target=crew.work, name=f"parallel-{n}", daemon=True) for n in range(1, width)]
    for thread in threads:
        thread.start()
    try:
        crew.work()
    finally:
        crew.stop = True
        for thread in threads:
            thread.join()
    if crew.error is not None:
        raise crew.error


class _Crew(Generic[T]):
    def __init__(self, items: Iterator[T], work: Callable[[T], None]) -> None:
        self.stop = False
        self.error: BaseException | None = None
        self._items, self._work, self._lock = items, work, threading.Lock()

    def work(self) -> None:
        try:
            for item in self._taken():
                self._work(item)
        except BaseException as error:  # noqa: BLE001 (raised again by who waits)
            self.stop = True
            self.error = self.error or error

    def _taken(self) -> Iterator[T]:
        while not self.stop:
            with self._lock:
                found = list(islice(self._items, 1))
            if not found:
                return
            yield found[0]
