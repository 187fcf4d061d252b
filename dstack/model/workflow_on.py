"""`on`: what starts a workflow by itself, in its short and long forms."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from dstack.model import fields, language, vocabulary
from dstack.model.cron import check_zone, parse_cron
from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.errors import Invalid
from dstack.model.mapping_keys import Keys
from dstack.model.patterns import MAX_PATTERNS, only_negative, pattern_problem, ref_problem
from dstack.model.problems import Misread, Problems, nearest, shown
from dstack.model.triggers import UTC_ZONE, PullRequest, Push, Schedule, Triggers

MAX_ENTRIES = 20
PUSH, PULL_REQUEST, SCHEDULE = "push", "pull-request", "schedule"
WORDS = (PUSH, PULL_REQUEST)

_WHEN = "`schedule` must say when: write `on: {schedule: '30 4 * * 1-5'}`"

T = TypeVar("T")


def triggers(node: Node, problems: Problems) -> Triggers:
    """What starts a workflow."""
    if isinstance(node, Mapping):
        return _written_out(Keys(node, problems))
    items = node.items if isinstance(node, Sequence) else (node,)
    words: list[str] = []
    for item in items:
        with problems.noting():
            words.append(_word(item))
    if not items:
        raise Misread(node.mark, "`on` is empty: write `push`, `pull-request` or `schedule`, or leave it out")
    return Triggers(
        push=(Push(),) if PUSH in words else (), pull_request=(PullRequest(),) if PULL_REQUEST in words else ()
    )


def _word(node: Node) -> str:
    word = fields.scalar(node, "a trigger").text
    if word == SCHEDULE:
        raise Misread(node.mark, _WHEN)
    if word in WORDS:
        return word
    if other := vocabulary.other_trigger(word):
        raise Misread(node.mark, f"dstack has no trigger {shown(word)}: {other}")
    hint = nearest(word, language.ON) or ": write push, pull-request or schedule"
    raise Misread(node.mark, f"{shown(word)} is no trigger{hint}")


def _written_out(keys: Keys) -> Triggers:
    keys.refuse("`on`", language.ON)
    if not keys.node.entries:
        raise Misread(keys.node.mark, "`on` is empty: write `push`, `pull-request` or `schedule`, or leave it out")
    problems = keys.problems
    return Triggers(
        push=keys.read(PUSH, partial(_each, what="`push`", read=partial(_push, problems=problems)), ()),
        pull_request=keys.read(
            PULL_REQUEST, partial(_each, what="`pull-request`", read=partial(_pull, problems=problems)), ()
        ),
        schedule=keys.read(SCHEDULE, partial(_each, what="`schedule`", read=partial(_schedule, problems=problems)), ()),
    )


def _each(node: Node, what: str, read: Callable[[Node], T]) -> tuple[T, ...]:
    """One entry, or a list of them, each once."""
    items = node.items if isinstance(node, Sequence) else (node,)
    if not items:
        raise Misread(node.mark, f"{what} is empty: write an entry, or leave it out")
    if len(items) > MAX_ENTRIES:
        raise Misread(node.mark, f"{what} has {len(items)} entries: at most {MAX_ENTRIES}")
    return tuple(dict.fromkeys(read(item) for item in items))


def _push(node: Node, problems: Problems) -> Push:
    if _bare(node):
        return Push()
    keys = Keys(fields.mapping(node, "`push`"), problems)
    keys.refuse("`push`", language.PUSH)
    read = partial(_patterns, problems=problems)
    found = Push(
        branches=keys.read("branches", partial(read, what="`branches`", problem=ref_problem), ()),
        tags=keys.read("tags", partial(read, what="`tags`", problem=ref_problem), ()),
        paths=keys.read("paths", partial(read, what="`paths`", problem=pattern_problem), ()),
    )
    if "paths" in keys and "tags" in keys and "branches" not in keys:
        raise Misread(node.mark, "`paths` don't apply to tags: name `branches` as well, or leave `paths` out")
    return found


def _pull(node: Node, problems: Problems) -> PullRequest:
    if _bare(node):
        return PullRequest()
    keys = Keys(fields.mapping(node, "`pull-request`"), problems)
    keys.refuse("`pull-request`", language.PULL_REQUEST)
    read = partial(_patterns, problems=problems)
    return PullRequest(
        branches=keys.read("branches", partial(read, what="`branches`", problem=ref_problem), ()),
        paths=keys.read("paths", partial(read, what="`paths`", problem=pattern_problem), ()),
    )


def _bare(node: Node) -> bool:
    """`push:` with nothing behind it, which means all of them."""
    return isinstance(node, Scalar) and node.null


def _patterns(node: Node, problems: Problems, what: str, problem: Callable[[str], str]) -> tuple[str, ...]:
    """One pattern, or a list of them, in the order of the file, which decides."""
    items = node.items if isinstance(node, Sequence) else (node,)
    if not items:
        raise Misread(node.mark, f"{what} is empty: name some, or leave it out where all of them matter")
    if len(items) > MAX_PATTERNS:
        raise Misread(node.mark, f"{what} has {len(items)} patterns: at most {MAX_PATTERNS}")
    found: list[str] = []
    for item in items:
        with problems.noting():
            found.append(_pattern(item, problem))
    if len(found) == len(items) and only_negative(found):
        raise Misread(node.mark, f"{what} only take back with `!`: name what is meant before, like '**'")
    return tuple(found)


def _pattern(node: Node, problem: Callable[[str], str]) -> str:
    text = fields.text(node, "a pattern")
    if why := problem(text):
        raise Misread(node.mark, f"{shown(text)} can't be a pattern: {why}")
    return text


def _schedule(node: Node, problems: Problems) -> Schedule:
    if _bare(node):
        raise Misread(node.mark, _WHEN)
    if isinstance(node, Scalar):
        return Schedule(cron=_cron(node))
    keys = Keys(fields.mapping(node, "`schedule`"), problems)
    keys.refuse("`schedule`", language.SCHEDULE)
    if "cron" not in keys:
        raise Misread(node.mark, "this schedule has no `cron`: write it like '30 4 * * 1-5'")
    return Schedule(cron=keys.get("cron", _cron), zone=keys.read("zone", _zone, UTC_ZONE))


def _cron(node: Node) -> str:
    text = fields.text(node, "`cron`")
    try:
        parse_cron(text)
    except Invalid as error:
        raise Misread(node.mark, f"`cron`: {error}") from error
    return " ".join(text.split())


def _zone(node: Node) -> str:
    try:
        return check_zone(fields.text(node, "`zone`"))
    except Misread:
        raise
    except Invalid as error:
        raise Misread(node.mark, f"`zone`: {error}") from error
