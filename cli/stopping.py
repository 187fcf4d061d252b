"""Writes to a run's branch what is wanted of it now: stop or abort, of the whole run or of some jobs."""

from dataclasses import dataclass

from cli.poking import poke
from cli.reading import Reader
from cli.signed_ledger import signed_ledger
from dstack.ledger.submit import refusal
from dstack.model.errors import Conflict, Invalid
from dstack.model.observation import Outcome, RunRecord, SetWanted
from dstack.model.refs import run_branch
from dstack.model.runspec import Desired, Wanted
from dstack.model.world import RunView

TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of a run, or of some of its jobs."""

    run: str
    desired: Desired
    jobs: tuple[str, ...] = ()


def ask_for(reader: Reader, wish: Wish) -> None:
    """Write the wish to the run's branch, over whatever others write meanwhile. Raises Conflict, Invalid, Failed."""
    for _ in range(TRIES):
        seen = reader.session.poll()
        ledger = signed_ledger(reader.session, seen.settings)
        if run_branch(wish.run) not in seen.found:
            msg = f"the run {wish.run} is gone from the state remote"
            raise Invalid(msg)
        observation = reader.observation(seen, [wish.run])
        view, record = reader.view(seen, wish.run), observation.runs[wish.run]
        if not isinstance(view, RunView) or not isinstance(record, RunRecord):
            msg = f"{wish.run} can't be stopped: it is not a run of this dstack repository"
            raise Invalid(msg)
        # Of a run that is to be resumed, though nobody has answered yet, it is the new life that is stopped.
        wanted = merged(record.wanted, wish, max(view.state.generation, record.wanted.generation))
        if wanted == record.wanted:
            return
        pushed = ledger.commit([SetWanted(run=wish.run, wanted=wanted)], observation, atomic=True)
        if pushed.won:
            poke(reader.session, seen)
            return
        if Outcome.REFUSED in pushed.outcomes.values():
            raise refusal(pushed, ledger.cache.url)
    msg = f"others change {wish.run} all the time: try again"
    raise Conflict(msg)


def merged(before: Wanted, wish: Wish, generation: int) -> Wanted:
    """What is wanted from now on. An abort is never taken back by a stop; a wish for an older generation is over."""
    run = before.desired if before.generation == generation else Desired.RUN
    jobs = dict(before.jobs) if before.generation == generation else {}
    if wish.jobs:
        jobs |= {job: _stronger(jobs.get(job, Desired.RUN), wish.desired) for job in wish.jobs}
    else:
        run = _stronger(run, wish.desired)
    return Wanted(root=before.root, desired=run, jobs=jobs, generation=generation, clean=before.clean)


def _stronger(one: Desired, other: Desired) -> Desired:
    return Desired.ABORT if Desired.ABORT in (one, other) else other
