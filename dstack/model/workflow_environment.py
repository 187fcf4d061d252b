"""What a workflow gives its commands to know: `env` and `matrix`."""

from collections.abc import Iterable
from functools import partial

from dstack.model import fields
from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.names import clashes, environment_problem, looks_secret, value_problem, variable_problem
from dstack.model.problems import Mark, Misread, Problems, shown


def environment(
    node: Node, problems: Problems, *, allowed: frozenset[str] | None, names: Iterable[str]
) -> dict[str, str | None]:
    """Names with their text, or None where the submitter's value is taken. `allowed` None allows every name."""
    found: dict[str, str | None] = {}
    for mark, name, value in _pairs(node, problems):
        problem = environment_problem(name) or value_problem(value or "")
        if problem:
            problems.add(mark, f"environment variable {shown(name)}: {problem}")
        elif allowed is not None and name not in allowed and looks_secret(name):
            problems.add(mark, _secret(name))
        elif name in found:
            problems.add(mark, f"the environment variable {shown(name)} stands here for the second time")
        found[name] = value
    for variable, name in clashes([*names, *found]):
        if name in found and variable not in found:
            problems.add(node.mark, f"`env` sets {name}, which the matrix name {variable!r} becomes for commands")
    return found


def _secret(name: str) -> str:
    return (
        f"{shown(name)} looks like a secret, and `env` is written into git: `secrets` is the place for it, not yet "
        f"supported; if it is none, pass `--allow-env {name[:60]}`"
    )


def _pairs(node: Node, problems: Problems) -> list[tuple[Mark, str, str | None]]:
    if isinstance(node, Mapping):
        return list(fields.each(_as_list(node), "`env`", problems, _from_map))
    return list(fields.each(node, "`env`", problems, _from_list))


def _as_list(node: Mapping) -> Sequence:
    return Sequence(
        mark=node.mark, items=tuple(Mapping(mark=key.mark, entries=((key, value),)) for key, value in node.entries)
    )


def _from_map(node: Node) -> tuple[Mark, str, str | None]:
    key, value = fields.mapping(node, "`env`").entries[0]
    if isinstance(value, Scalar) and value.null:
        name = key.text[:60]
        raise Misread(
            key.mark,
            f'`env` has no value for {shown(name)}: write "" for an empty one, or a list with `- {name}`'
            " to take it from the submitter's environment",
        )
    return key.mark, key.text, fields.scalar(value, f"the value of {shown(key.text)}").text


def _from_list(node: Node) -> tuple[Mark, str, str | None]:
    name, equals, value = fields.text(node, "an item of `env`").partition("=")
    return node.mark, name, value if equals else None


def matrix(node: Node, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Names with the texts of their values."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in fields.mapping(node, "`matrix`").entries:
        with problems.noting():
            if key.text in {"include", "exclude"}:
                raise Misread(key.mark, f"`{key.text}` in `matrix` is not yet supported")
            if problem := variable_problem(key.text):
                raise Misread(key.mark, f"matrix name {shown(key.text)}: {problem}")
            found[key.text] = _values(value, key.text, problems)
    for first, second in clashes(found):
        problems.add(node.mark, f"the matrix names {first!r} and {second!r} are one and the same for commands")
    return found


def _values(node: Node, name: str, problems: Problems) -> tuple[str, ...]:
    what = f"a value of {shown(name)}"
    values = [
        item.text
        for item in fields.each(
            node, f"the matrix values of {shown(name)}", problems, partial(fields.scalar, what=what)
        )
    ]
    for value in values:
        if problem := value_problem(value):
            raise Misread(node.mark, f"{what}: {problem}")
    if not fields.sequence(node, what).items:
        raise Misread(node.mark, f"the matrix name {shown(name)} has no values")
    if len(set(values)) < len(values):
        raise Misread(node.mark, f"the matrix name {shown(name)} has a value twice")
    return tuple(values)
