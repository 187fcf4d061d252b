"""The sign in the store that somebody follows the logs of a run: while it is fresh, its runners send them at once."""

from dstack.model import keys
from dstack.store.store import Store

# Who follows renews it so often; it holds for longer, so that one that comes late changes nothing.
RENEW_SECONDS = 10.0
FRESH_SECONDS = 30.0


def renew(store: Store, run: str) -> None:
    """Somebody follows the run, a RunKey's text. Raises what the store raises, Failed where it may not be written."""
    store.put(keys.watched(run), b"")


def left(store: Store, run: str) -> float:
    """Seconds for which the sign still holds, by the store's own clock; 0 where nobody follows."""
    head = store.head(keys.watched(run))
    if head is None:
        return 0.0
    age = (store.now() - head.modified).total_seconds()
    return max(0.0, FRESH_SECONDS - max(0.0, age))


def remove(store: Store, run: str) -> None:
    """Nobody needs it any more: the run has ended."""
    store.delete(keys.watched(run))
