"""Names for runs and runners that people can say: `adjective-animal-N`."""

import re
from collections.abc import Collection
from itertools import count

from dstack.model.runspec import Trigger

MOST_WORKFLOW = 24
MOST_PLACE = 20

_NOT_NAMED = re.compile(r"[^a-z0-9]+")

ADJECTIVES = tuple(
    """able agile airy amber apt bold brave breezy bright brisk calm candid cheery chirpy clear clever cosy crisp
    curious daring deft eager early easy fair fancy fast fine fond fresh gentle giddy glad golden grand happy
    hardy humble jolly keen kind lively loyal lucky mellow merry mighty neat nimble noble plucky polite proud
    quick quiet rapid ready silver snappy steady sunny swift tidy warm""".split()  # noqa: SIM905 -- quoted words read worse
)
ANIMALS = tuple(
    """alpaca badger bat bear beaver bee bison camel cat cheetah cicada crane cricket deer dingo dolphin dove duck
    eagle egret elk falcon ferret finch fox frog gecko gibbon goat goose hare hawk hedgehog heron horse ibex
    jackal jay koala lark lemur lion llama lynx marmot mole moose moth newt ocelot otter owl panda parrot puffin
    quail rabbit raven robin seal stork swan tapir tiger""".split()  # noqa: SIM905 -- likewise
)


def new_name(adjective: int, animal: int, taken: Collection[str]) -> str:
    """The pair that two random numbers (of any size) choose, with the first number that is free among `taken`."""
    pair = f"{ADJECTIVES[adjective % len(ADJECTIVES)]}-{ANIMALS[animal % len(ANIMALS)]}"
    return next(name for n in count(1) if (name := f"{pair}-{n}") not in taken)


def triggered_name(workflow: str, trigger: Trigger, number: int = 1) -> str:
    """The name of a run that a trigger starts, always the same: `train-main-3f2a9c10`, `train-pr-12-…`.

    `number` is 2, 3, … where the names before are taken by runs of other keys.
    """
    where = trigger.slot[:16] if trigger.slot else trigger.ref.split("/", 2)[-1]
    where = where if trigger.pull is None else f"pr-{trigger.pull}"
    end = f"-{trigger.key[:8]}" + (f"-{number}" if number > 1 else "")
    start = "-".join(filter(None, (_slug(workflow, MOST_WORKFLOW), _slug(where, MOST_PLACE))))
    return f"{start}{end}"


def _slug(text: str, most: int) -> str:
    return _NOT_NAMED.sub("-", text.lower())[:most].strip("-")
