"""What a workflow gives its commands to know: `env`, and `secrets` by name."""

from collections.abc import Collection, Iterable

from dstack.model import fields
from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.names import clashes, environment_problem, looks_secret, shell_name, value_problem
from dstack.model.problems import Mark, Misread, Problems, shown

MAX_SECRETS = 100


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
        f"{shown(name)} looks like a secret, and `env` is written into git: name it in `secrets`, and set it on the "
        f"runner by `dstack-runner secret set`; if it is none, pass `--allow-env {name[:60]}`"
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


def secrets(node: Node, problems: Problems, *, environment: Collection[str], names: Collection[str]) -> tuple[str, ...]:
    """Names, each once. `environment` and `names` (of the matrix) are taken already."""
    folded = {shell_name(name): name for name in names}
    found: dict[str, str] = {}
    for mark, name in fields.each(node, "`secrets`", problems, _marked):
        taken = folded.get(name) or (name if name in names else None)
        if problem := environment_problem(name):
            hint = f": name it alone, its value is set by `dstack-runner secret set {name.partition('=')[0][:60]}`"
            problems.add(mark, f"secret {shown(name)}: {problem}" if "=" not in name else f"{shown(name)}{hint}")
        elif name in environment:
            problems.add(
                mark, f"{shown(name)} is both a secret and in `env`: take it out of `env`, which stands in git"
            )
        elif taken is not None:
            problems.add(mark, f"the secret {shown(name)} is what the matrix name {taken!r} becomes for commands")
        elif name.upper() in found:
            problems.add(mark, _again(name, found[name.upper()]))
        found.setdefault(name.upper(), name)
    if len(found) > MAX_SECRETS:
        raise Misread(node.mark, f"{len(found)} secrets are too many: name at most {MAX_SECRETS}")
    return tuple(found.values())


def _again(name: str, first: str) -> str:
    if name == first:
        return f"the secret {shown(name)} stands here for the second time"
    return f"the secrets {shown(first)} and {shown(name)} differ in upper and lower case only"


def _marked(node: Node) -> tuple[Mark, str]:
    return node.mark, fields.text(node, "a secret")
