"""`matrix`: lists of values of which every combination is a job, less those of `exclude`, and those of `include`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from dstack.model import fields
from dstack.model.document import Node
from dstack.model.exclusions import excluder, shapes
from dstack.model.names import clashes, value_problem, variable_problem
from dstack.model.problems import Mark, Misread, Problems, nearest, shown

MAX_INCLUDE = 10_000
MAX_EXCLUDE = 1_000
MAX_SHAPES = 16

Combination = dict[str, str]
Lists = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """`lists` by name, in the order of the file. All combinations have the same names."""

    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    include: tuple[Combination, ...] = ()
    exclude: tuple[Combination, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the lists; without lists, of the combinations."""
        return tuple(self.lists or (self.include[0] if self.include else ()))


def matrix(node: Node, problems: Problems) -> Matrix:
    """The matrix of a workflow."""
    lists: Lists = {}
    more: dict[str, Node] = {}
    for key, value in fields.mapping(node, "`matrix`").entries:
        with problems.noting():
            if key.text in {"include", "exclude"}:
                more[key.text] = value
            else:
                _check_name(key.mark, key.text)
                lists[key.text] = _values(value, key.text, problems)
    excluded = _excluded(more["exclude"], lists, problems) if "exclude" in more else ()
    included = _included(more["include"], lists, excluded, problems) if "include" in more else ()
    found = Matrix(lists=lists, include=included, exclude=excluded)
    for first, second in clashes(found.names):
        problems.add(node.mark, f"the matrix names {first!r} and {second!r} are one and the same for commands")
    return found


def _check_name(mark: Mark, name: str) -> None:
    if problem := variable_problem(name):
        raise Misread(mark, f"matrix name {shown(name)}: {problem}")


def _values(node: Node, name: str, problems: Problems) -> tuple[str, ...]:
    what = f"a value of {shown(name)}"
    read = partial(_value, what=what)
    values = tuple(fields.each(node, f"the matrix values of {shown(name)}", problems, read))
    if not fields.sequence(node, what).items:
        raise Misread(node.mark, f"the matrix name {shown(name)} has no values")
    if len(set(values)) < len(values):
        raise Misread(node.mark, f"the matrix name {shown(name)} has a value twice")
    return values


def _value(node: Node, what: str) -> str:
    found = fields.scalar(node, what).text
    if problem := value_problem(found):
        raise Misread(node.mark, f"{what}: {problem}")
    return found


def _excluded(node: Node, lists: Lists, problems: Problems) -> tuple[Combination, ...]:
    if not lists:
        raise Misread(node.mark, "`exclude` leaves out of lists, and there is none: write `name: [values]` beside it")
    found = tuple(fields.each(node, "`exclude`", problems, partial(_exclusion, lists=lists, problems=problems)))
    if len(found) > MAX_EXCLUDE:
        raise Misread(node.mark, f"{len(found)} combinations to exclude are too many: at most {MAX_EXCLUDE}")
    if len(shapes(tuple(lists), found)) > MAX_SHAPES:
        raise Misread(node.mark, f"these combinations name more than {MAX_SHAPES} different sets of names")
    return found


def _exclusion(node: Node, lists: Lists, problems: Problems) -> Combination:
    found = _combination(node, "`exclude`", lists)
    for name, value in found.items():
        if name in lists and value not in lists[name]:
            known = ", ".join(map(shown, lists[name][:10]))
            problems.add(node.mark, f"`exclude` names {shown(f'{name}={value}')}; the values of {name} are {known}")
    return found


def _included(
    node: Node, lists: Lists, excluded: tuple[Combination, ...], problems: Problems
) -> tuple[Combination, ...]:
    items = fields.sequence(node, "`include`").items
    if len(items) > MAX_INCLUDE:
        raise Misread(node.mark, f"{len(items)} combinations to include are too many: at most {MAX_INCLUDE}")
    found: dict[tuple[str, ...], Combination] = {}
    is_made = _maker(lists, excluded)
    names: Collection[str] = lists
    for item in items:
        with problems.noting():
            one = _combination(item, "`include`", names)
            names = names or tuple(one)
            _check_whole(item.mark, one, names)
            whole = {name: one[name] for name in names}
            if tuple(whole.values()) in found or (lists and is_made(whole)):
                raise Misread(item.mark, "this combination is in the matrix already")
            found[tuple(whole.values())] = whole
    return tuple(found.values())


def _combination(node: Node, where: str, names: Collection[str]) -> Combination:
    found: Combination = {}
    for key, value in fields.mapping(node, f"a combination of {where}").entries:
        if names and key.text not in names:
            hint = nearest(key.text, names) or f"; it has {', '.join(names)}"
            raise Misread(key.mark, f"{where} names {shown(key.text)}, which the matrix doesn't have{hint}")
        _check_name(key.mark, key.text)
        found[key.text] = _value(value, f"a value of {shown(key.text)}")
    if not found:
        raise Misread(node.mark, f"a combination of {where} must name values, like `{{lr: 0.1}}`")
    return found


def _check_whole(mark: Mark, one: Combination, names: Collection[str]) -> None:
    missing = [name for name in names if name not in one]
    if missing:
        raise Misread(mark, f"a combination of `include` needs a value for every name: {', '.join(missing)} is missing")


def _maker(lists: Lists, excluded: tuple[Combination, ...]) -> Callable[[Combination], bool]:
    """Whether lists and exclusions make a combination by themselves."""
    is_excluded = excluder(tuple(lists), excluded)

    def is_made(whole: Combination) -> bool:
        listed = all(value in lists[name] for name, value in whole.items())
        return listed and not is_excluded(tuple(whole.values()))

    return is_made
