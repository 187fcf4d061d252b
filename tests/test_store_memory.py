from datetime import UTC, datetime

import pytest

from dstack.model.errors import Unavailable
from dstack.store.memory import MemoryStore


def test_memory_is_away_when_it_is_told_so() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    away = [False]
    store = MemoryStore(clock=lambda: moment, away=lambda: away[0])
    store.put("a/b", b"x")
    away[0] = True
    for call in (
        lambda: store.put("a/b", b"y"),
        lambda: store.get("a/b", limit=1),
        lambda: store.open("a/b"),
        lambda: store.head("a/b"),
        lambda: store.delete("a/b"),
        lambda: list(store.list("a/")),
    ):
        with pytest.raises(Unavailable):
            call()
    other = store.seen_by(lambda: False)
    assert other.get("a/b", limit=1) == b"x"
    assert [head.modified for head in other.list("a/")] == [moment]
