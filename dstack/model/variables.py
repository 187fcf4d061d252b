"""`.dstack/variables.yaml` → Variables."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstack.model import fields, language
from dstack.model.document import Node, Scalar, parse_document
from dstack.model.errors import Invalid
from dstack.model.mapping_keys import Keys
from dstack.model.names import clashes, shell_name, value_problem, variable_problem
from dstack.model.problems import Misread, Problems, nearest, shown
from dstack.model.workflow import Workflow, Workflows

PATH = ".dstack/variables.yaml"
GLOBAL = "global"

_Section = dict[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """The sections of the file, `global` and workflows' names, with the texts of their variables as typed."""

    path: str = PATH
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def section(self, name: str) -> Mapping[str, str]:
        """What stands in one section."""
        return self.sections.get(name, {})

    def of(self, workflow: str) -> dict[str, str]:
        """What a workflow gets: its own section over `global`."""
        return {**self.section(GLOBAL), **self.section(workflow)}


def parse_variables(text: bytes | None, workflows: Workflows, *, path: str = PATH) -> Variables:
    """Parse the file; None (there is none) has no variables. Raises Invalid with every problem, one a line."""
    if text is None:
        return Variables(path=path)
    problems = Problems(path)
    root = parse_document(text, problems)
    sections = {} if root is None or _is_null(root) else _read_root(root, workflows, problems)
    _check_shell_names(sections, workflows, problems)
    problems.check()
    texts = {name: {key: value.text for key, value in section.items()} for name, section in sections.items()}
    return Variables(path=path, sections=texts)


def chosen_values(workflow: Workflow, name: str, values: Sequence[str]) -> tuple[str, ...]:
    """The values chosen of one name of the matrix, in the order of the file. Raises Invalid."""
    known = workflow.matrix_values(name) if name in workflow.matrix_names else None
    if known is None:
        msg = f"workflow {workflow.name!r} has no matrix name {shown(name)}{nearest(name, workflow.matrix_names)}"
        raise Invalid(msg)
    unknown = next((value for value in values if value not in known), None)
    if unknown is not None or not values:
        got = "none" if unknown is None else shown(unknown)
        msg = f"{name} of workflow {workflow.name!r} takes {', '.join(map(shown, known[:20]))}; not {got}"
        raise Invalid(msg)
    return tuple(value for value in known if value in values)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _read_root(root: Node, workflows: Workflows, problems: Problems) -> dict[str, _Section]:
    with problems.noting():
        keys = Keys(fields.mapping(root, "the file"), problems)
        keys.refuse("the file", language.VARIABLES_FILE)
        return keys.read("variables", lambda node: _read_sections(node, workflows, problems), {})
    return {}


def _read_sections(node: Node, workflows: Workflows, problems: Problems) -> dict[str, _Section]:
    sections: dict[str, _Section] = {}
    for key, value in () if _is_null(node) else fields.mapping(node, "`variables`").entries:
        with problems.noting():
            if key.text != GLOBAL and key.text not in workflows.by_name:
                hint = nearest(key.text, [GLOBAL, *workflows.by_name]) or ": name `global` or a workflow"
                raise Misread(key.mark, f"there is no workflow {shown(key.text)} for this section{hint}")
            sections[key.text] = {} if _is_null(value) else _read_section(value, key.text, problems)
    return sections


def _read_section(node: Node, name: str, problems: Problems) -> _Section:
    section: _Section = {}
    for key, value in fields.mapping(node, f"the section {shown(name)}").entries:
        with problems.noting():
            if problem := variable_problem(key.text):
                raise Misread(key.mark, f"variable {shown(key.text)}: {problem}")
            if _is_null(value):
                raise Misread(key.mark, f'variable {shown(key.text)} has no value: write "" for an empty one')
            found = fields.scalar(value, f"variable {shown(key.text)}")
            if problem := value_problem(found.text):
                raise Misread(value.mark, f"variable {shown(key.text)}: {problem}")
            section[key.text] = Scalar(mark=key.mark, text=found.text, plain=found.plain)
    return section


def _check_shell_names(sections: dict[str, _Section], workflows: Workflows, problems: Problems) -> None:
    """No two variables of a workflow, its matrix and `env` may be one and the same for a shell."""
    common = sections.get(GLOBAL, {})
    for first, second in clashes(common):
        problems.add(common[second].mark, _clash(first, second, GLOBAL))
    shared = {shell_name(name): name for name in common}
    for workflow in workflows.by_name.values():
        own = sections.get(workflow.name, {})
        _check_workflow(workflow, own, shared, problems)
        shells = ChainMap({shell_name(name): name for name in own}, shared)
        _check_outer(workflow, shells, ChainMap(own, common), problems)


def _check_workflow(workflow: Workflow, own: _Section, shared: Mapping[str, str], problems: Problems) -> None:
    for first, second in clashes(own):
        problems.add(own[second].mark, _clash(first, second, workflow.name))
    for name, value in own.items():
        outer = shared.get(shell_name(name), name)
        if outer != name:
            problems.add(value.mark, _clash(outer, name, f"{GLOBAL} and {workflow.name}"))
        if name in workflow.matrix_names:
            problems.add(
                value.mark, f"{shown(name)} is a matrix name of workflow {workflow.name!r}: give it in one place"
            )


def _check_outer(
    workflow: Workflow, shells: Mapping[str, str], known: Mapping[str, Scalar], problems: Problems
) -> None:
    for name in workflow.matrix_names:
        variable = shells.get(shell_name(name), name)
        if variable != name:
            problems.add(known[variable].mark, _clash(name, variable, f"the matrix of {workflow.name}"))
    for name in workflow.environment:
        found = name if name in known else shells.get(name)
        if found is not None:
            problems.add(known[found].mark, f"`env` of workflow {workflow.name!r} sets {name}, as this variable does")
    for name in workflow.secrets:
        found = name if name in known else shells.get(name)
        if found is not None:
            message = (
                f"{name} is one of the `secrets` of workflow {workflow.name!r}: take the variable out of this file"
            )
            problems.add(known[found].mark, message)


def _clash(first: str, second: str, where: str) -> str:
    return f"variables {first!r} and {second!r} ({where}) are one and the same for commands: ${shell_name(second)}"
