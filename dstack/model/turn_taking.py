"""`max-parallel`: how many attempts of one workflow of one run are open at once. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from dstack.model.placing import Candidate
from dstack.model.turn import Turn


def in_turn(turns: Iterable[Turn]) -> tuple[Sequence[Candidate], dict[str, str]]:
    """Of what is ready, what may be placed now; and for the rest, by key, why it waits.

    Jobs of one workflow need the same of a runner, so it does no harm that the first take the places of all.
    """
    queue: list[Candidate] = []
    waiting: dict[str, str] = {}
    for turn in turns:
        taken = Counter(item.planned.job.workflow for item in turn.open)
        for candidate in sorted((one.candidate for one in turn.ready), key=lambda one: one.order):
            most, workflow = candidate.job.max_parallel, candidate.job.workflow
            if most is not None and taken[workflow] >= most:
                verb = "runs" if most == 1 else "run"
                waiting[candidate.key] = f"waits for its turn: {most} of {workflow} {verb} at once"
                continue
            taken[workflow] += 1
            queue.append(candidate)
    return queue, waiting
