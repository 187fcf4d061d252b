"""`.dstack/workflows.yaml` → Workflows: every entry by itself, then what they say of each other."""

import functools
from collections.abc import Iterator

from dstack.model import fields, language
from dstack.model.document import Node, Scalar, parse_document
from dstack.model.mapping_keys import Keys
from dstack.model.problems import START, Problems, nearest, shown
from dstack.model.workflow import Workflow, Workflows
from dstack.model.workflow_keys import Entry, read_entry
from dstack.model.workflow_places import clashing, mounted, saved

__all__ = ["MAX_WORKFLOWS", "PATH", "Workflow", "Workflows", "parse_workflows"]

PATH = ".dstack/workflows.yaml"
MAX_WORKFLOWS = 1000
MAX_INPUTS = 200_000


def parse_workflows(text: bytes, *, path: str = PATH, allow_env: frozenset[str] | None = frozenset()) -> Workflows:
    """Parse the file. Raises Invalid with every problem found, one `path:line:column: message` a line.

    `allow_env` names what may stand in `env` though it looks like a secret; None allows all, for reading what was
    submitted already.
    """
    return _parsed(text, path, allow_env)


@functools.lru_cache(maxsize=2)
def _parsed(text: bytes, path: str, allow_env: frozenset[str] | None) -> Workflows:
    """A command reads its file for the flags, and what is submitted again: nearly always the same text."""
    problems = Problems(path)
    entries = _entries(_list(parse_document(text, problems), problems), problems, allow_env)
    by_name = {entry.workflow.name: entry for entry in entries}
    _check_names(entries, problems)
    _check_needs(by_name, problems)
    _check_artifacts(by_name, problems)
    _check_submitters(by_name, problems)
    problems.check()
    return Workflows(path=path, by_name={name: entry.workflow for name, entry in by_name.items()})


def _list(root: Node | None, problems: Problems) -> tuple[Node, ...]:
    if root is None or (isinstance(root, Scalar) and root.null):
        problems.fatal(START, "the file is empty: write `workflows:` and a list below it")
    with problems.noting():
        keys = Keys(fields.mapping(root, "the file"), problems)
        keys.refuse("the file", language.WORKFLOWS_FILE)
        if "workflows" not in keys:
            problems.fatal(root.mark, "there is no `workflows` at the top: write `workflows:` and a list below it")
        nodes = keys.read("workflows", lambda node: fields.sequence(node, "`workflows`").items, ())
        if len(nodes) > MAX_WORKFLOWS:
            problems.fatal(nodes[MAX_WORKFLOWS].mark, f"{len(nodes)} workflows are too many: at most {MAX_WORKFLOWS}")
        return nodes
    return ()


def _entries(nodes: tuple[Node, ...], problems: Problems, allow_env: frozenset[str] | None) -> list[Entry]:
    found = (read_entry(node, problems, allow_env) for node in nodes)
    return [entry for entry in found if entry is not None]


def _check_names(entries: list[Entry], problems: Problems) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.workflow.name, entry)
        if first is not entry:
            name = shown(entry.workflow.name)
            problems.add(entry.mark, f"there is a workflow {name} already, in line {first.mark.line}")


def _check_needs(by_name: dict[str, Entry], problems: Problems) -> None:
    for entry in by_name.values():
        for need in entry.needs:
            if need.text not in by_name:
                hint = nearest(need.text, by_name) or ": name a workflow of this file"
                problems.add(need.mark, f"there is no workflow {shown(need.text)} to depend on{hint}")
    cycle = _cycle(by_name)
    if cycle:
        problems.add(by_name[cycle[0]].mark, f"these workflows wait for each other: {' → '.join([*cycle, cycle[0]])}")


def _cycle(by_name: dict[str, Entry]) -> list[str]:
    """Names of which each depends on the next, and the last on the first; empty where there are none."""
    done: set[str] = set()
    for start in by_name:
        path: dict[str, None] = {}
        todo = [(start, False)]
        while todo:
            name, left = todo.pop()
            if left:
                done.add(path.popitem()[0])
            elif name in path:
                return list(path)[list(path).index(name) :]
            elif name in by_name and name not in done:
                path[name] = None
                todo.append((name, True))
                todo.extend((need.text, False) for need in reversed(by_name[name].needs))
    return []


def _check_artifacts(by_name: dict[str, Entry], problems: Problems) -> None:
    """Two dependencies of one workflow must not write to one place, nor one where a folder is mounted."""
    inputs = 0
    for entry in by_name.values():
        owned = [place for need in _needed(entry, by_name) for place in saved(*need)]
        inputs += len(owned)
        if inputs > MAX_INPUTS:
            problems.fatal(entry.mark, f"up to here, dependencies bring more than {MAX_INPUTS} artifacts")
        for first, second, where in clashing(owned):
            both = f"{first} and {second}, both dependencies of this workflow"
            problems.add(entry.mark, f"{both}, have artifacts at one place: {where}")
        mounts = [(path, "its `volumes` or `cache-dirs`") for path, _ in mounted(entry.workflow)]
        if mounts:
            brought = [(path, "what dependencies of this workflow bring") for path, _ in owned]
            for first, second, where in clashing([*brought, *mounts]):
                problems.add(entry.mark, f"{first} and {second} can't be at one place: {where}")


def _check_submitters(by_name: dict[str, Entry], problems: Problems) -> None:
    """A trigger submits in nobody's environment: what would be taken from there can't be, in all that it starts."""
    asking = {name: entry for name, entry in by_name.items() if None in entry.workflow.environment.values()}
    dependents: dict[str, list[str]] = {}
    for name, entry in by_name.items():
        for need in entry.needs:
            dependents.setdefault(need.text, []).append(name)
    for name, entry in asking.items():
        taken = next(key for key, value in entry.workflow.environment.items() if value is None)
        reached: dict[str, None] = {}
        todo = [name]
        while todo:
            found = todo.pop()
            if found not in reached:
                reached[found] = None
                todo.extend(dependents.get(found, ()))
        for started in reached:
            if by_name[started].workflow.on:
                text = f"a trigger has no environment to take {shown(taken)} of workflow {shown(name)} from"
                problems.add(by_name[started].mark, f"{text}: write a value, or name it in `secrets`")


def _needed(entry: Entry, by_name: dict[str, Entry]) -> Iterator[tuple[Workflow, str]]:
    """The workflows whose artifacts this one gets, as far as this file has them, and how it names them."""
    for need in entry.needs:
        if need.text in by_name:
            yield by_name[need.text].workflow, repr(need.text)
    for tagged in entry.workflow.tag_needs:
        if tagged.workflow in by_name:
            yield by_name[tagged.workflow].workflow, repr(f"{tagged.workflow}:{tagged.tag}")
