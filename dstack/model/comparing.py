"""What differs between two runs, or two jobs: variables, definitions, metrics, and which jobs there are. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from dstack.model.job import Job
from dstack.model.metrics import Measured, is_nan

# Of the run or the plan, or shown apart.
_APART = frozenset({"version", "root", "workflow", "matrix", "variables", "needs", "tagged"})
_YAML_NAMES = {"environment": "env", "include": "repo.include", "saves": "save"}


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A variable or key of a workflow; None where one side has none."""

    workflow: str
    name: str
    before: str | None
    after: str | None


class MetricChange(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a job, or of two jobs that correspond."""

    job: str
    name: str
    before: Measured | None
    after: Measured | None


class OneSided(msgspec.Struct, frozen=True, kw_only=True):
    """A job that only one side has: `before` or `after`."""

    job: str
    side: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs, but for the code."""

    variables: tuple[Changed, ...]
    definitions: tuple[Changed, ...]
    metrics: tuple[MetricChange, ...]
    jobs: tuple[OneSided, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A job of one side."""

    job: Job
    metrics: Mapping[str, Measured] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """By which jobs of two runs correspond."""
        return self.job.workflow, tuple(sorted(self.job.matrix.items()))


def compare_jobs(before: Compared, after: Compared) -> Comparison:
    """Two jobs, whichever they are: matrix values are variables like any other."""
    return Comparison(
        variables=tuple(_texts(before.job.workflow, before.job.variables, after.job.variables)),
        definitions=tuple(_definitions(before.job, after.job)),
        metrics=tuple(_metrics(before, after)),
        jobs=(),
    )


def compare_runs(before: Sequence[Compared], after: Sequence[Compared]) -> Comparison:
    """Jobs correspond by workflow and matrix. Variables and definitions are compared once a workflow."""
    old, new = {one.place: one for one in before}, {one.place: one for one in after}
    first, second = _templates(before), _templates(after)
    both = [name for name in first if name in second]
    names = {one: {*first[one].matrix, *second[one].matrix} for one in both}
    return Comparison(
        variables=tuple(
            change
            for name in both
            for change in _texts(
                name, _without(first[name].variables, names[name]), _without(second[name].variables, names[name])
            )
        ),
        definitions=tuple(change for name in both for change in _definitions(first[name], second[name])),
        metrics=tuple(change for place, one in old.items() if place in new for change in _metrics(one, new[place])),
        jobs=(
            *(OneSided(job=one.job.title, side="before") for place, one in old.items() if place not in new),
            *(OneSided(job=one.job.title, side="after") for place, one in new.items() if place not in old),
        ),
    )


def _templates(jobs: Sequence[Compared]) -> dict[str, Job]:
    """One job of each workflow: all of a matrix have the same definition."""
    return {one.job.workflow: one.job for one in reversed(jobs)}


def _without(values: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


def _texts(workflow: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Changed]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Changed(workflow=workflow, name=name, before=before.get(name), after=after.get(name))


def _definitions(before: Job, after: Job) -> Iterator[Changed]:
    if before.workflow != after.workflow:
        yield Changed(workflow=before.workflow, name="name", before=before.workflow, after=after.workflow)
    yield from _texts(before.workflow, definition(before), definition(after))


def definition(job: Job) -> dict[str, str]:
    """What a workflow says of a job, by key, as text; a line each command. What is not said is left out."""
    found = {
        _YAML_NAMES.get(name, name.replace("_", "-")): _text(value)
        for name, value in msgspec.to_builtins(job).items()
        if name not in _APART
    }
    needs = [
        *dict.fromkeys(need.workflow for need in job.needs),
        *sorted({_tag(job, n) for n in range(len(job.tagged))}),
    ]
    return found | ({"depends-on": "\n".join(needs)} if needs else {})


def _tag(job: Job, number: int) -> str:
    """With the manifest: a tag that has moved is another input."""
    one = job.tagged[number]
    return f"{one.workflow}:{one.tag} ({one.manifest[:12]})"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _metrics(before: Compared, after: Compared) -> Iterator[MetricChange]:
    title = before.job.title
    for name in dict.fromkeys([*before.metrics, *after.metrics]):
        old, new = before.metrics.get(name), after.metrics.get(name)
        if old != new and not (is_nan(old) and is_nan(new)):
            yield MetricChange(job=title, name=name, before=old, after=new)
