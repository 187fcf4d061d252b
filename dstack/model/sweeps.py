"""What the command line makes of a run's matrices: values selected, variables swept; before anything is combined."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dstack.model.errors import Invalid
from dstack.model.names import clashes, shell_name, value_problem
from dstack.model.problems import nearest, shown
from dstack.model.runspec import RunSpec
from dstack.model.variables import GLOBAL, Variables, chosen_values
from dstack.model.workflow import Workflow

Values = tuple[str, ...]


def with_sweeps(graph: tuple[Workflow, ...], spec: RunSpec, variables: Variables) -> tuple[Workflow, ...]:
    """The workflows of a run (in dependency order, the wanted one last) with the matrices it has. Raises Invalid."""
    by_name = {workflow.name: workflow for workflow in graph}
    for name, values in spec.matrix.items():
        by_name[spec.workflow] = selected(by_name[spec.workflow], name, values)
    for section, sweeps in spec.sweeps.items():
        if section != GLOBAL and section not in by_name:
            msg = f"variables of {shown(section)} are swept, which is no part of this run{nearest(section, by_name)}"
            raise Invalid(msg)
        for name, values in sweeps.items():
            if section in by_name and name in by_name[section].matrix_names:
                by_name[section] = selected(by_name[section], name, values)
            else:
                _check(section, name, values, variables)
                by_name |= _swept(by_name, section, name, values, variables)
    return tuple(by_name.values())


def selected(workflow: Workflow, name: str, values: Sequence[str]) -> Workflow:
    """The workflow with these values of one matrix name alone. Raises Invalid."""
    chosen = chosen_values(workflow, name, values)
    lists = {key: known if key != name else _both(known, chosen) for key, known in workflow.matrix.items()}
    included = tuple(one for one in workflow.matrix_include if one[name] in chosen)
    return replace(workflow, matrix=lists, matrix_include=included)


def _both(known: Values, chosen: Values) -> Values:
    return tuple(value for value in known if value in chosen)


def _check(section: str, name: str, values: Values, variables: Variables) -> None:
    known = variables.section(section)
    if name not in known:
        hint = nearest(name, known)
        msg = f"the variable {shown(name)} is swept, which the section {section!r} doesn't have{hint}"
        raise Invalid(msg)
    if not values or len(set(values)) < len(values):
        msg = f"{name} is swept over {'no values' if not values else 'a value twice'}: name each value once"
        raise Invalid(msg)
    for value in values:
        if problem := value_problem(value):
            msg = f"variable {shown(name)}: {problem}"
            raise Invalid(msg)


def _swept(
    by_name: Mapping[str, Workflow], section: str, name: str, values: Values, variables: Variables
) -> dict[str, Workflow]:
    """Those that see the variable, and those that depend on one of them, so that each value has a chain of its own."""
    found: dict[str, Workflow] = {}
    for workflow in by_name.values():
        own = variables.section(workflow.name)
        sees = section == workflow.name or (section == GLOBAL and name not in own)
        if not sees and found.keys().isdisjoint(workflow.depends_on):
            continue
        if name in workflow.matrix_names:
            continue  # its own values: of a dependency, those that agree are needed
        if not sees:
            _check_free(workflow, section, name, [*variables.of(workflow.name)])
        found[workflow.name] = _widened(workflow, name, values)
    if not found:
        msg = f"{section}.{name} can't be swept: every workflow of this run has a {name} of its own"
        raise Invalid(msg)
    return found


def _check_free(workflow: Workflow, section: str, name: str, taken: Iterable[str]) -> None:
    """A workflow that only depends on one that sees the variable gets it too: its own must not be hidden."""
    names = [*taken, *workflow.matrix_names, *workflow.environment, *workflow.secrets]
    if shell_name(name) in map(shell_name, names) or any(clashes([*workflow.matrix_names, name])):
        msg = (
            f"{section}.{name} can't be swept: workflow {workflow.name!r} depends on one that sees it, and has a "
            f"{name} of its own; write a matrix into the file instead"
        )
        raise Invalid(msg)


def _widened(workflow: Workflow, name: str, values: Values) -> Workflow:
    """The workflow with one name more in its matrix."""
    included = tuple({**one, name: value} for one in workflow.matrix_include for value in values)
    only_included = workflow.matrix_include and not workflow.matrix
    lists = {} if only_included else {**workflow.matrix, name: values}
    return replace(workflow, matrix=lists, matrix_include=included)
