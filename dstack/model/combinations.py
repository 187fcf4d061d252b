"""Which matrix combinations of the workflows of a run are needed, and which of them agree with each other."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from dstack.model.errors import Invalid
from dstack.model.exclusions import Values, excluder
from dstack.model.workflow import Workflow

MAX_JOBS = 10_000
MAX_PRODUCT = 100_000  # of a matrix with `exclude`
_COUNTABLE = 10**15


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


def combine(graph: tuple[Workflow, ...]) -> dict[str, Combinations]:
    """The combinations of each workflow of a graph that stands in dependency order, the wanted one last.

    Of a dependency only those are made that agree with one of a workflow that needs it. Raises Invalid where that would
    be more than `MAX_JOBS` in all.
    """
    dependents: dict[str, list[str]] = {workflow.name: [] for workflow in graph}
    for workflow in graph:
        for need in workflow.depends_on:
            dependents[need].append(workflow.name)
    possible: dict[str, dict[str, Values]] = {}
    for workflow in reversed(graph):
        outer = [possible[name] for name in dependents[workflow.name]]
        possible[workflow.name] = {
            name: _possible(name, workflow.matrix_values(name), outer) for name in workflow.matrix_names
        }
    _check_product(graph, possible)
    made: dict[str, Combinations] = {}
    for workflow in reversed(graph):
        whole = _expand(workflow, possible[workflow.name])
        made[workflow.name] = _agreeing(whole, [made[name] for name in dependents[workflow.name]])
    _check_count({name: len(combinations.all) for name, combinations in made.items()})
    return made


def shared_names(one: Combinations, other: Combinations) -> tuple[str, ...]:
    """The names both have, in the order of the first."""
    return tuple(name for name in one.names if name in other.names)


def _possible(name: str, values: Values, dependents: list[dict[str, Values]]) -> Values:
    """The values that a workflow which needs this one can agree with; all, where one of them hasn't the name."""
    if not dependents or any(name not in dependent for dependent in dependents):
        return values
    wanted = {value for dependent in dependents for value in dependent[name]}
    return tuple(value for value in values if value in wanted)


def _check_product(graph: tuple[Workflow, ...], possible: Mapping[str, Mapping[str, Values]]) -> None:
    """What would be made at all; of a matrix with `exclude`, much of it may be left out again."""
    counts = {
        workflow.name: prod(len(set(possible[workflow.name][name]).intersection(values)) for name, values in lists)
        for workflow in graph
        if (lists := tuple(workflow.matrix.items()))
    }
    excluding = {workflow.name for workflow in graph if workflow.matrix_exclude}
    _check_count({name: count for name, count in counts.items() if name not in excluding})
    if sum(counts.get(name, 0) for name in excluding) > MAX_PRODUCT:
        _check_count(counts)


def _check_count(counts: Mapping[str, int]) -> None:
    total = sum(counts.values())
    if total > MAX_JOBS:
        largest = max(counts, key=lambda workflow: counts[workflow])
        number = f"{total} jobs" if total < _COUNTABLE else "more jobs than can be counted"
        msg = f"this run would have {number}, most of them of {largest!r}; at most {MAX_JOBS} are accepted"
        raise Invalid(msg)


def _expand(workflow: Workflow, possible: Mapping[str, Values]) -> Combinations:
    """Every combination of possible values, less those excluded, and those included."""
    names = workflow.matrix_names
    if not names:
        return Combinations(names=(), all=((),))
    wanted = {name: frozenset(values) for name, values in possible.items()}
    lists = ([value for value in values if value in wanted[name]] for name, values in workflow.matrix.items())
    found = list(itertools.product(*lists)) if workflow.matrix else []
    if workflow.matrix_exclude:
        is_excluded = excluder(names, workflow.matrix_exclude)
        found = [values for values in found if not is_excluded(values)]
    for included in workflow.matrix_include:
        if all(included[name] in wanted[name] for name in names):
            found.append(tuple(included[name] for name in names))
    return Combinations(names=names, all=tuple(found))


def _agreeing(whole: Combinations, dependents: list[Combinations]) -> Combinations:
    """Those that agree with one of the dependents; all, where nothing depends on it."""
    if not whole.names or not dependents:
        return whole
    needed: set[int] = set()
    for dependent in dependents:
        common = shared_names(whole, dependent)
        wanted = set(dependent.projected(common))
        needed |= {place for place, values in enumerate(whole.projected(common)) if values in wanted}
    return Combinations(
        names=whole.names, all=tuple(values for place, values in enumerate(whole.all) if place in needed)
    )
