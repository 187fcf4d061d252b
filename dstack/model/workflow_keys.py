"""One entry of the list of workflows → a Workflow. What needs the other workflows is checked in `workflows`."""

import re
from dataclasses import dataclass, replace
from functools import partial

from dstack.model import fields, language, refs
from dstack.model import workflow_places as places
from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.errors import Invalid
from dstack.model.job import Pull, Resources, Shell
from dstack.model.mapping_keys import Keys
from dstack.model.problems import Mark, Misread, Problems, nearest, shown
from dstack.model.triggers import Triggers
from dstack.model.workflow import Workflow
from dstack.model.workflow_environment import environment, secrets
from dstack.model.workflow_limits import duration, labels, max_parallel, resources, retry, timeout
from dstack.model.workflow_matrix import Matrix, matrix
from dstack.model.workflow_needs import Needs, needs
from dstack.model.workflow_on import triggers

IMAGE = r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,499}"

_IMAGE = re.compile(IMAGE, re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A workflow as it stands in the file, with the places later messages point at."""

    workflow: Workflow
    name: Scalar
    needs: tuple[Scalar, ...]

    @property
    def mark(self) -> Mark:
        """Where its name stands."""
        return self.name.mark


def read_entry(node: Node, problems: Problems, allow_env: frozenset[str] | None) -> Entry | None:
    """The workflow of this node; None where it has no usable name. `allow_env` None allows every name in `env`."""
    with problems.noting():
        keys = Keys(fields.mapping(node, "a workflow"), problems)
        keys.refuse("a workflow", language.WORKFLOW)
        _refuse_expressions(keys.node, problems)
        name = keys.read("name", _name, None)
        if "name" not in keys:
            problems.add(node.mark, "this workflow has no `name`")
        if "commands" not in keys:
            problems.add(node.mark, "this workflow has no `commands`: write a list of shell commands")
        needed = keys.read("depends-on", partial(needs, problems=problems), Needs())
        workflow = _workflow(keys, needed, allow_env)
        _check_places(keys, workflow)
        return Entry(workflow=replace(workflow, name=name.text), name=name, needs=needed.jobs) if name else None
    return None


def _workflow(keys: Keys, needed: Needs, allow_env: frozenset[str] | None) -> Workflow:
    problems, container = keys.problems, "image" in keys
    found = places.Artifacts()
    found = keys.read("artifacts", partial(places.artifacts, problems=problems, absolute=container), found)
    metrics = partial(places.metrics, problems=problems, absolute=container, among=found)
    combined = keys.read("matrix", partial(matrix, problems=problems), Matrix())
    env = partial(environment, problems=problems, allowed=allow_env, names=combined.names)
    known = keys.read("env", env, {})
    supplied = partial(secrets, problems=problems, environment=known, names=combined.names)
    return Workflow(
        name="",
        help=keys.read("help", partial(fields.text, what="`help`"), ""),
        image=keys.read("image", _image, None),
        pull=keys.read("pull", partial(_pull, image="image" in keys), Pull.MISSING),
        shell=keys.read("shell", _shell, Shell.SH),
        commands=keys.read("commands", partial(_commands, problems=problems), ()),
        depends_on=tuple(need.text for need in needed.jobs),
        tag_needs=needed.tags,
        include=needed.include,
        artifacts=found.paths,
        saves=found.saves,
        metrics=keys.read("metrics", metrics, ()),
        resources=keys.read("resources", partial(resources, problems=problems), Resources()),
        environment=known,
        secrets=keys.read("secrets", supplied, ()),
        volumes=keys.read("volumes", partial(places.volumes, problems=problems, absolute=container), ()),
        cache_dirs=keys.read("cache-dirs", partial(places.cache_dirs, problems=problems, absolute=container), ()),
        working_dir=keys.read("working-dir", places.working_dir, "."),
        timeout=keys.read("timeout", timeout, None),
        stop_grace=keys.read("stop-grace", partial(duration, what="`stop-grace`"), 30.0),
        retry=keys.read("retry", partial(retry, problems=problems), None),
        matrix=combined.lists,
        matrix_include=combined.include,
        matrix_exclude=combined.exclude,
        max_parallel=keys.read("max-parallel", max_parallel, None),
        cache=keys.read("cache", partial(fields.boolean, what="`cache`"), default=True),
        labels=keys.read("labels", partial(labels, problems=problems), ()),
        on=keys.read("on", partial(triggers, problems=problems), Triggers()),
    )


def _check_places(keys: Keys, workflow: Workflow) -> None:
    """What is saved, what is mounted and what is kept must not lie in one another."""
    if not workflow.volumes and not workflow.cache_dirs:
        return
    mark = keys.get("volumes" if workflow.volumes else "cache-dirs", lambda node: node.mark)
    for first, second, where in places.clashing([*places.saved(workflow, "`artifacts`"), *places.mounted(workflow)]):
        keys.problems.add(mark, f"{first} and {second} can't be at one place: {where}")


def _refuse_expressions(node: Mapping, problems: Problems) -> None:
    """`${{ … }}` belongs to other tools; a shell would stop at it. Bounded by what aliases may expand to."""
    todo: list[Node] = [value for _, value in node.entries]
    while todo:
        found = todo.pop()
        if isinstance(found, Scalar) and "${{" in found.text:
            message = "dstack doesn't replace `${{ … }}`: variables reach commands as environment, write `$name`"
            problems.add(found.mark, message)
        elif isinstance(found, Sequence):
            todo.extend(found.items)
        elif isinstance(found, Mapping):
            todo.extend(value for _, value in found.entries)


def _name(node: Node) -> Scalar:
    found = fields.scalar(node, "`name`")
    if found.text == "global":
        raise Misread(node.mark, "a workflow can't be called 'global': variables.yaml has a section of that name")
    try:
        refs.check_name(found.text, "workflow")
    except Invalid as error:
        raise Misread(node.mark, str(error)) from error
    return found


def _image(node: Node) -> str:
    text = fields.text(node, "`image`")
    if _IMAGE.fullmatch(text):
        return text
    raise Misread(node.mark, f"{shown(text)} can't be a Docker image: write it like `python:3.12-slim`")


def _pull(node: Node, *, image: bool) -> Pull:
    text = fields.text(node, "`pull`")
    if text not in tuple(Pull):
        raise Misread(
            node.mark, f"`pull` is `always`, or left out for a pull where the image is absent: not {shown(text)}"
        )
    if not image:
        raise Misread(node.mark, "`pull` says when an `image` is pulled, and this workflow has none")
    return Pull(text)


def _shell(node: Node) -> Shell:
    text = fields.text(node, "`shell`")
    if text not in tuple(Shell):
        hint = nearest(text, tuple(Shell))
        raise Misread(node.mark, f"`shell` is sh or bash, not {shown(text)}{hint}: start another one in `commands`")
    return Shell(text)


def _commands(node: Node, problems: Problems) -> tuple[str, ...]:
    if isinstance(node, Scalar):
        return (fields.text(node, "`commands`"),)
    commands = tuple(fields.each(node, "`commands`", problems, partial(fields.text, what="a command")))
    if not fields.sequence(node, "`commands`").items:
        raise Misread(node.mark, "`commands` must not be empty")
    return commands
