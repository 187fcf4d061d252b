"""Which matrix combinations of the workflows of a run are needed, and which of them agree with each other."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from dstack.model.errors import Invalid
from dstack.model.workflow import Workflow

MAX_JOBS = 10_000
_COUNTABLE = 10**15

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combinations:
    """The combinations of one workflow, as values in the order of `names`."""

    names: tuple[str, ...]
    all: tuple[Values, ...]

    def matrices(self) -> Iterator[dict[str, str]]:
        """Each combination by name."""
        return (dict(zip(self.names, values, strict=True)) for values in self.all)

    def projected(self, names: tuple[str, ...]) -> list[Values]:
        """Each combination, reduced to some of its names."""
        places = [self.names.index(name) for name in names]
        return [tuple(values[place] for place in places) for values in self.all]


def combine(graph: tuple[Workflow, ...], chosen: Mapping[str, Values]) -> dict[str, Combinations]:
    """The combinations of each workflow of a graph that stands in dependency order, the wanted one last.

    `chosen` limits the values of the wanted workflow's matrix. Of a dependency only those are made that agree with one
    of a workflow that needs it. Raises Invalid where that would be more than `MAX_JOBS` in all.
    """
    dependents: dict[str, list[Workflow]] = {workflow.name: [] for workflow in graph}
    for workflow in graph:
        for need in workflow.depends_on:
            dependents[need].append(workflow)
    limits: dict[str, dict[str, Values]] = {}
    for workflow in reversed(graph):
        outer = [limits[dependent.name] for dependent in dependents[workflow.name]]
        limits[workflow.name] = _limited(workflow, outer) if outer else {**workflow.matrix, **chosen}
    _check_count(limits)
    made: dict[str, Combinations] = {}
    for workflow in reversed(graph):
        outer_made = [made[dependent.name] for dependent in dependents[workflow.name]]
        made[workflow.name] = _expand(limits[workflow.name], outer_made)
    return made


def shared_names(one: Combinations, other: Combinations) -> tuple[str, ...]:
    """The names both have, in the order of the first."""
    return tuple(name for name in one.names if name in other.names)


def _limited(workflow: Workflow, dependents: list[dict[str, Values]]) -> dict[str, Values]:
    """The values that a workflow which needs this one can agree with; all, where one of them hasn't the name."""
    limited: dict[str, Values] = {}
    for name, values in workflow.matrix.items():
        if all(name in dependent for dependent in dependents):
            wanted = {value for dependent in dependents for value in dependent[name]}
            limited[name] = tuple(value for value in values if value in wanted)
        else:
            limited[name] = values
    return limited


def _check_count(limits: Mapping[str, Mapping[str, Values]]) -> None:
    counts = {workflow: prod(len(values) for values in matrix.values()) for workflow, matrix in limits.items()}
    total = sum(counts.values())
    if total > MAX_JOBS:
        largest = max(counts, key=lambda workflow: counts[workflow])
        number = f"{total} jobs" if total < _COUNTABLE else "more jobs than can be counted"
        msg = f"this run would have {number}, most of them of {largest!r}; at most {MAX_JOBS} are accepted"
        raise Invalid(msg)


def _expand(matrix: Mapping[str, Values], dependents: list[Combinations]) -> Combinations:
    names = tuple(matrix)
    whole = Combinations(names=names, all=tuple(itertools.product(*matrix.values())))
    if not names or not dependents:
        return whole
    needed: set[int] = set()
    for dependent in dependents:
        common = shared_names(whole, dependent)
        wanted = set(dependent.projected(common))
        needed |= {place for place, values in enumerate(whole.projected(common)) if values in wanted}
    return Combinations(names=names, all=tuple(values for place, values in enumerate(whole.all) if place in needed))
