"""What may leave the store, and when: nothing that anything mentions, and nothing at once (DESIGN section 10). Pure."""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from dstack.model.codec import Value
from dstack.model.runspec import Utc

# What is younger may be on its way to being named: an upload sends again what is older than a day.
AGE = timedelta(days=7)
# Between writing down what is to go and deleting it: whoever looked before has named by then what he uses.
DELAY = timedelta(days=1)
VERSION = 1

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_OF_RUNS = ("logs", "saved")
# Signs of life, which whoever lives writes over and over.
_SIGNS = ("runners", "controllers", "watched")


class Condemned(Value, frozen=True, kw_only=True):
    """`condemned/<id>`: what is to go, unless something mentions it by then. `at` is for people: the store's counts."""

    version: int = VERSION
    at: Utc
    by: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """What must stay: `contents` are keys of objects and manifests, `names` those of runs that have a branch.

    By the text of their keys: `runs` that are anywhere at all, those that are `active` (not archived), and those that
    are `reusable`.
    """

    contents: AbstractSet[str]
    runs: AbstractSet[str]
    active: AbstractSet[str]
    reusable: AbstractSet[str]
    names: AbstractSet[str]

    def needs(self, key: str, hint: str = "") -> bool:
        """Whether this key of the store must stay, whatever its age. `hint`: the run that a hint of the cache names."""
        kind, _, rest = key.partition("/")
        if kind in ("objects", "manifests"):
            return key in self.contents
        if kind in _OF_RUNS:
            run = rest.partition("/")[0]
            return run in (self.runs if kind == "logs" else self.active) or run.rpartition(".")[0] in self.names
        if kind == "cache":
            return hint in self.reusable or hint.rpartition(".")[0] in self.names
        return kind not in _SIGNS


def mentioned(data: bytes) -> set[str]:
    """Every SHA-256 that a record holds, whatever the record means by it: also one of a later version counts."""
    return {found.decode() for found in _DIGEST.findall(data)}


def is_old(modified: datetime, now: datetime) -> bool:
    """Whether what was written then may be condemned; both by the store's clock."""
    return now - modified > AGE


def is_due(condemned: datetime, now: datetime) -> bool:
    """Whether what was condemned then may be deleted; both by the store's clock."""
    return now - condemned > DELAY


def is_off(modified: datetime, condemned: datetime) -> bool:
    """Whether it was written anew since it was condemned; then it was old. Holds for clocks that tell only seconds."""
    return condemned - modified < AGE
