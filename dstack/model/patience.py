"""How long to wait before the next try, after a remote or store did not serve. Pure."""

from dstack.model.errors import Unavailable

FIRST_SECONDS = 0.5
# What comes back is to be noticed soon, however long it was away.
AWAY_SECONDS = 4.0
# Who asks for patience, or waits for a person, is to be left in peace.
LONGEST_SECONDS = 60.0


def pause(
    tries: int,
    jitter: float,
    error: BaseException | None = None,
    *,
    first: float = FIRST_SECONDS,
    longest: float | None = None,
) -> float:
    """Seconds until the next try, after `tries` that failed: doubling from `first`, never less than was asked for.

    At most `longest`; None means by what went wrong.

    `jitter`, from 0 to 1, takes off up to a half, so that many don't try at one moment. `error`: why the last failed.
    """
    trouble = error if isinstance(error, Unavailable) else Unavailable("")
    most = (AWAY_SECONDS if trouble.away else LONGEST_SECONDS) if longest is None else longest
    wait = min(most, first * 2.0 ** min(tries - 1, 16)) * (0.5 + jitter / 2)
    return max(wait, trouble.retry_after or 0.0)
