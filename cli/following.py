"""Follows one run: its state and its logs as they come, until it has ended."""

import random
import time
from collections.abc import Callable, Iterator

from cli.attention import NEW_SECONDS, Attention
from cli.lines import RunLine
from cli.marks import AWAY_POLL_SECONDS, POLL_SECONDS, Marks
from cli.poking import listening
from cli.reading import Reader
from cli.session import Seen
from cli.tails import AWAY_SECONDS, Tails
from cli.terminal import tell
from dstack import interrupts
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.model.refs import RunKey
from dstack.wakeups import Wakeups

LOOK_SECONDS = 0.01
LONGEST_AWAY_SECONDS = 8.0

Watcher = Callable[[RunLine], None]


def updates(reader: Reader, run: RunKey, *, new: bool = False) -> Iterator[tuple[Seen, RunLine] | None]:
    """The run whenever it has changed, and None in between, often. Ends behind the run's end. Raises Failed if it goes.

    Looks at the files of a local remote first: a fetch only follows where one has changed, or after some seconds.
    `new`: the run was made just now, by this process.
    """
    remote = reader.session.remote
    marks = Marks(remote=remote.path, key=run, poll=AWAY_POLL_SECONDS.get(remote.reach, POLL_SECONDS))
    if new:
        marks.assume_new(time.monotonic())
    last: RunLine | None = None
    wakeups: Wakeups | None = None
    try:
        while last is None or not last.finished:
            interrupts.check()
            if not marks.due(time.monotonic()):
                yield None
                time.sleep(LOOK_SECONDS)
                continue
            marks.taken(time.monotonic())
            seen = _patient_poll(reader)
            wakeups = wakeups or listening(seen, remote, marks.wake)
            if refs.run_branch(run.name) not in seen.found:
                msg = f"the run {run.name} is gone from the state remote: its branch was deleted, or it was archived"
                raise Failed(msg)
            line = reader.line(seen, run.name)
            if line != last:
                last = line
                yield seen, line
    finally:
        if wakeups:
            wakeups.stop()


def _patient_poll(reader: Reader) -> Seen:
    """A remote that is away comes back: say so once, and wait."""
    told, tries = False, 0
    while True:
        try:
            return reader.session.poll()
        except Unavailable as error:
            if not told:
                tell(f"{error}; waiting for it")
            told, tries = True, tries + 1
            longest = min(AWAY_SECONDS * 2.0 ** min(tries, 4), LONGEST_AWAY_SECONDS)
            interrupts.sleep(error.retry_after or longest * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)


def follow(reader: Reader, run: RunKey, tails: Tails, watch: Watcher, *, new: bool = False) -> RunLine:
    """Print logs until the run has ended; `watch` is told of every change. The result is its end."""
    last: RunLine | None = None
    attention = Attention(run, after=NEW_SECONDS if new else 0.0)
    try:
        for update in updates(reader, run, new=new):
            if update:
                seen, last = update
                if last.store:
                    store = seen.store(last.store)
                    attention.show(store)
                    tails.take(last, store)
                tails.show(at_once=True)
                watch(last)
            tails.show()
        tails.drain()
    finally:
        attention.end(over=last is not None and last.finished)
    if last is None:
        msg = f"the run {run.name} could not be followed"
        raise Failed(msg)
    return last
