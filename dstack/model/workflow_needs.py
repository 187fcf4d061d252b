"""`depends-on` in its three forms: workflows, tags of workflows, and the files of the repository."""

from dataclasses import dataclass
from functools import partial

from dstack.model import fields, language, refs
from dstack.model.document import Mapping, Node, Scalar
from dstack.model.errors import Invalid
from dstack.model.globs import glob_problem
from dstack.model.mapping_keys import Keys
from dstack.model.problems import Misread, Problems, shown
from dstack.model.workflow import TagNeed

MAX_GLOBS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """`jobs` as they stand in the file, `tags`, and globs of files (none: all of them)."""

    jobs: tuple[Scalar, ...] = ()
    tags: tuple[TagNeed, ...] = ()
    include: tuple[str, ...] = ()


def needs(node: Node, problems: Problems) -> Needs:
    """What a workflow depends on."""
    if not isinstance(node, Mapping):
        return _listed(node, problems, "`depends-on`", ())
    keys = Keys(node, problems)
    keys.refuse("`depends-on`", language.DEPENDS_ON)
    if not node.entries:
        raise Misread(node.mark, "`depends-on` is empty: write `workflows` or `repo`, or a list of workflows")
    include = keys.read("repo", partial(_repo, problems=problems), ())
    read = partial(_listed, problems=problems, what="`workflows`", include=include)
    return keys.read("workflows", read, Needs(include=include))


def _listed(node: Node, problems: Problems, what: str, include: tuple[str, ...]) -> Needs:
    seen: dict[str, str] = {}
    jobs: list[Scalar] = []
    tags: list[TagNeed] = []
    for found, need in fields.each(node, what, problems, _need):
        first = seen.get(need.workflow)
        seen.setdefault(need.workflow, found.text)
        if first == found.text:
            problems.add(found.mark, f"{shown(found.text)} stands here for the second time")
        elif first is not None:
            message = f"{shown(first)} and {shown(found.text)} would bring the same artifacts: name one of them"
            problems.add(found.mark, message)
        elif need.tag:
            tags.append(need)
        else:
            jobs.append(found)
    return Needs(jobs=tuple(jobs), tags=tuple(tags), include=include)


def _need(node: Node) -> tuple[Scalar, TagNeed]:
    """The text, and what it means; without a tag where a job is meant."""
    found = fields.scalar(node, "a dependency")
    workflow, colon, tag = found.text.partition(":")
    if colon:
        try:
            refs.check_name(workflow, "workflow")
            refs.check_tag(tag)
        except Invalid as error:
            raise Misread(node.mark, f"the dependency {shown(found.text)}, read as `workflow:tag`: {error}") from error
    return found, TagNeed(workflow=workflow, tag=tag)


def _repo(node: Node, problems: Problems) -> tuple[str, ...]:
    keys = Keys(fields.mapping(node, "`repo`"), problems)
    keys.refuse("`repo`", language.REPO)
    if "include" not in keys:
        raise Misread(node.mark, "`repo` has no `include`: write a list of globs, like `[src, '*.py']`")
    return keys.read("include", partial(_globs, problems=problems), ())


def _globs(node: Node, problems: Problems) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(fields.each(node, "`include`", problems, _glob)))
    if not fields.sequence(node, "`include`").items:
        raise Misread(node.mark, "`include` is empty: name files, or leave `repo` out where all of them matter")
    if len(found) > MAX_GLOBS:
        raise Misread(node.mark, f"{len(found)} globs are too many: name at most {MAX_GLOBS}")
    return found


def _glob(node: Node) -> str:
    text = fields.text(node, "a glob")
    if problem := glob_problem(text):
        raise Misread(node.mark, f"{shown(text)} can't be a glob: {problem}")
    return text
