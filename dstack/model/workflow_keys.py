"""One entry of the list of workflows → a Workflow. What needs the other workflows is checked in `workflows`."""

import re
from dataclasses import dataclass, replace
from functools import partial

from dstack.model import fields, refs, vocabulary
from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.errors import Invalid
from dstack.model.folder_paths import inner_path
from dstack.model.job import Pull, Resources
from dstack.model.mapping_keys import Keys
from dstack.model.problems import Mark, Misread, Problems, shown
from dstack.model.workflow import Workflow
from dstack.model.workflow_environment import environment, matrix
from dstack.model.workflow_limits import duration, labels, resources, retry, timeout

MAX_ARTIFACTS = 200

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,499}", re.ASCII)
_GLOB = re.compile(r"[*?]|\$\{?[A-Za-z_]")


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
        keys.refuse("a workflow", vocabulary.NOW, vocabulary.LATER)
        _refuse_expressions(keys.node, problems)
        name = keys.read("name", _name, None)
        if "name" not in keys:
            problems.add(node.mark, "this workflow has no `name`")
        if "commands" not in keys:
            problems.add(node.mark, "this workflow has no `commands`: write a list of shell commands")
        needs = keys.read("depends-on", partial(_needs, problems=problems), ())
        workflow = _workflow(keys, tuple(need.text for need in needs), allow_env)
        return Entry(workflow=replace(workflow, name=name.text), name=name, needs=needs) if name else None
    return None


def _workflow(keys: Keys, needs: tuple[str, ...], allow_env: frozenset[str] | None) -> Workflow:
    problems = keys.problems
    artifacts = partial(_artifacts, problems=problems, absolute="image" in keys)
    combined = keys.read("matrix", partial(matrix, problems=problems), {})
    return Workflow(
        name="",
        help=keys.read("help", partial(fields.text, what="`help`"), ""),
        image=keys.read("image", _image, None),
        pull=keys.read("pull", partial(_pull, image="image" in keys), Pull.MISSING),
        commands=keys.read("commands", partial(_commands, problems=problems), ()),
        depends_on=needs,
        artifacts=keys.read("artifacts", artifacts, ()),
        resources=keys.read("resources", partial(resources, problems=problems), Resources()),
        environment=keys.read("env", partial(environment, problems=problems, allowed=allow_env, names=combined), {}),
        working_dir=keys.read("working-dir", _folder, "."),
        timeout=keys.read("timeout", timeout, None),
        stop_grace=keys.read("stop-grace", partial(duration, what="`stop-grace`"), 30.0),
        retry=keys.read("retry", partial(retry, problems=problems), None),
        matrix=combined,
        cache=keys.read("cache", partial(fields.boolean, what="`cache`"), default=True),
        labels=keys.read("labels", partial(labels, problems=problems), ()),
    )


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


def _commands(node: Node, problems: Problems) -> tuple[str, ...]:
    if isinstance(node, Scalar):
        return (fields.text(node, "`commands`"),)
    commands = tuple(fields.each(node, "`commands`", problems, partial(fields.text, what="a command")))
    if not fields.sequence(node, "`commands`").items:
        raise Misread(node.mark, "`commands` must not be empty")
    return commands


def _needs(node: Node, problems: Problems) -> tuple[Scalar, ...]:
    if isinstance(node, Mapping):
        raise Misread(node.mark, "`depends-on` as an object is not yet supported: write a list of workflows")
    needs: dict[str, Scalar] = {}
    for need in fields.each(node, "`depends-on`", problems, _need):
        if need.text in needs:
            problems.add(need.mark, f"{shown(need.text)} stands here for the second time")
        needs[need.text] = need
    return tuple(needs.values())


def _need(node: Node) -> Scalar:
    found = fields.scalar(node, "a dependency")
    if ":" in found.text:
        message = f"a dependency on a tag ({shown(found.text)}) is not yet supported: name the workflow alone"
        raise Misread(node.mark, message)
    return found


def _artifacts(node: Node, problems: Problems, *, absolute: bool) -> tuple[str, ...]:
    read = partial(_artifact, absolute=absolute)
    found = dict.fromkeys(fields.each(node, "`artifacts`", problems, read))
    if len(found) > MAX_ARTIFACTS:
        raise Misread(
            node.mark, f"{len(found)} artifacts are too many: name at most {MAX_ARTIFACTS}, folders for instance"
        )
    return tuple(found)


def _artifact(node: Node, *, absolute: bool) -> str:
    if isinstance(node, Mapping):
        raise Misread(node.mark, "an artifact as an object (`path`, `save`) is not yet supported: write the path alone")
    text = fields.text(node, "an artifact")
    if _GLOB.search(text):
        raise Misread(
            node.mark, f"{shown(text)}: patterns and variables aren't replaced in artifact paths; name a folder"
        )
    path = _path(node, text, absolute=absolute)
    if path == "/":
        raise Misread(node.mark, "the whole file system can't be an artifact")
    return path


def _folder(node: Node) -> str:
    return _path(node, fields.text(node, "`working-dir`"), absolute=False)


def _path(node: Node, text: str, *, absolute: bool) -> str:
    try:
        return inner_path(text, absolute=absolute)
    except Invalid as error:
        raise Misread(node.mark, str(error)) from error
