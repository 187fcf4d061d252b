"""What flags of a run mean: which variable a name sets, which value of a matrix it selects, what is swept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dstack.model.errors import Invalid
from dstack.model.names import spelling, value_problem
from dstack.model.problems import nearest, shown
from dstack.model.variables import GLOBAL, Variables, chosen_values
from dstack.model.workflow import Workflow, Workflows

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """What a flag can set: a variable of a section, with its `default`; or a name of a workflow's matrix (None).

    `plain`: whether its name alone means it; with its section, `prepare.seed`, every flag can be written.
    """

    section: str
    name: str
    default: str | None = None
    values: Values = ()
    plain: bool = False

    @property
    def full(self) -> str:
        """`section.name`."""
        return f"{self.section}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """As in RunSpec."""

    variables: dict[str, dict[str, str]] = field(default_factory=dict)
    matrix: dict[str, Values] = field(default_factory=dict)
    sweeps: dict[str, dict[str, Values]] = field(default_factory=dict)


class Flags:
    """Everything that can be set when a workflow is run; dashes and underscores in names are one."""

    def __init__(self, workflows: Workflows, variables: Variables, wanted: str) -> None:
        """Raises Invalid where there is no workflow `wanted`."""
        self.wanted = workflows.get(wanted)
        self._path = variables.path
        self._workflows = {workflow.name: workflow for workflow in reversed(workflows.graph(wanted))}
        found = [flag for workflow in self._workflows.values() for flag in _own(workflow, variables)]
        found += [Flag(section=GLOBAL, name=name, default=text) for name, text in variables.section(GLOBAL).items()]
        self._full = {spelling(flag.full): flag for flag in found}
        self._named: dict[str, list[Flag]] = {}
        for flag in found:
            self._named.setdefault(spelling(flag.name), []).append(flag)

    def all(self) -> tuple[Flag, ...]:
        """Those of the wanted workflow first, then `global`, then its dependencies, the nearest first."""
        order = {name: place for place, name in enumerate([self.wanted.name, GLOBAL, *self._workflows])}
        order[self.wanted.name] = -1
        flags = sorted(self._full.values(), key=lambda flag: order[flag.section])
        return tuple(
            Flag(
                section=flag.section,
                name=flag.name,
                default=flag.default,
                values=flag.values,
                plain=self._plain(flag.name) is flag,
            )
            for flag in flags
        )

    def find(self, name: str) -> Flag:
        """What `--name` means: with its section, or what the workflow has or sees, or the one dependency that has it.

        Raises Invalid.
        """
        found = self._full.get(spelling(name)) or self._plain(name)
        if found is not None:
            return found
        having = self._named.get(spelling(name), [])
        if having:
            ways = " or ".join(f"--{flag.full}" for flag in having[:5])
            msg = f"{shown(name)} is a variable of {', '.join(flag.section for flag in having[:5])}: write {ways}"
            raise Invalid(msg)
        known = {flag.name: None for flag in self._full.values()} | dict.fromkeys(
            flag.full for flag in self._full.values() if "." in name
        )
        hint = nearest(name, known) or f": add it to {self._path}"
        msg = f"workflow {self.wanted.name!r} has no variable {shown(name)}{hint}"
        raise Invalid(msg)

    def choose(self, overrides: Iterable[tuple[str, str]], sweeps: Iterable[tuple[str, str]]) -> Choices:
        """Flags with their values, and `--matrix` with its lists as typed → what the run is to be. Raises Invalid.

        Of two flags for one variable the later counts; two lists for one name are joined.
        """
        chosen = Choices()
        for name, value in overrides:
            flag = self.find(name)
            _check(name, value)
            self._set(chosen, flag, value)
        lists: dict[str, tuple[Flag, Values]] = {}
        for name, text in sweeps:
            flag = self.find(name)
            values = split_values(name, text)
            lists[flag.full] = (flag, (*lists[flag.full][1], *values) if flag.full in lists else values)
        for flag, values in lists.values():
            self._sweep(chosen, flag, values)
        return chosen

    def _plain(self, name: str) -> Flag | None:
        for section in (self.wanted.name, GLOBAL):
            if found := self._full.get(spelling(f"{section}.{name}")):
                return found
        having = self._named.get(spelling(name), [])
        return having[0] if len(having) == 1 else None

    def _set(self, chosen: Choices, flag: Flag, value: str) -> None:
        if flag.default is not None:
            chosen.variables.setdefault(flag.section, {})[flag.name] = value
        else:
            self._select(chosen, flag, [value])

    def _sweep(self, chosen: Choices, flag: Flag, values: Values) -> None:
        given = chosen.variables.get(flag.section, {}) if flag.default is not None else {}
        selected = chosen.matrix if flag.section == self.wanted.name else chosen.sweeps.get(flag.section, {})
        if flag.name in given or flag.name in selected:
            msg = f"{flag.name} is set by a flag of its own and by --matrix: give it once"
            raise Invalid(msg)
        if len(set(values)) < len(values):
            msg = f"--matrix {flag.name}: a value stands there twice"
            raise Invalid(msg)
        for value in values:
            _check(flag.name, value)
        if flag.default is not None:
            chosen.sweeps.setdefault(flag.section, {})[flag.name] = values
        else:
            self._select(chosen, flag, values)

    def _select(self, chosen: Choices, flag: Flag, values: Sequence[str]) -> None:
        found = chosen_values(self._workflows[flag.section], flag.name, values)
        if flag.section == self.wanted.name:
            chosen.matrix[flag.name] = found
        else:
            chosen.sweeps.setdefault(flag.section, {})[flag.name] = found


def split_values(name: str, text: str) -> Values:
    """The values of `--matrix name=text`: between commas, as typed. A value in double quotes may hold commas itself.

    Within the quotes two stand for one. Raises Invalid.
    """
    values: list[str] = []
    rest = text
    while True:
        quoted = rest.startswith('"')
        value, rest = _quoted(name, rest) if quoted else _until_comma(rest)
        if not value and not quoted:
            msg = f'--matrix {name}={text[:60]} has an empty value: write --matrix {name}=1,2, or "" for an empty one'
            raise Invalid(msg)
        values.append(value)
        if not rest:
            break
        rest = rest[1:]
    return tuple(values)


def _until_comma(text: str) -> tuple[str, str]:
    value, comma, rest = text.partition(",")
    return value, comma + rest


def _quoted(name: str, text: str) -> tuple[str, str]:
    pieces: list[str] = []
    rest = text
    while rest.startswith('"'):
        piece, quote, rest = rest[1:].partition('"')
        if not quote:
            msg = f'--matrix {name}: a " that opens a value has none that closes it'
            raise Invalid(msg)
        pieces.append(piece)
    if rest and not rest.startswith(","):
        msg = f"--matrix {name}: behind the quoted value {shown(pieces[0])} a comma must follow"
        raise Invalid(msg)
    return '"'.join(pieces), rest


def _own(workflow: Workflow, variables: Variables) -> list[Flag]:
    matrix = [
        Flag(section=workflow.name, name=name, values=workflow.matrix_values(name)) for name in workflow.matrix_names
    ]
    own = variables.section(workflow.name)
    return [*matrix, *(Flag(section=workflow.name, name=name, default=text) for name, text in own.items())]


def _check(name: str, value: str) -> None:
    if problem := value_problem(value):
        msg = f"--{name[:60]}: {problem}"
        raise Invalid(msg)
