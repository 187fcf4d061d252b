"""What a workflow may take: `resources`, `timeout`, `stop-grace` and `retry`."""

from functools import partial

from dstack.model import fields, vocabulary
from dstack.model.document import Mapping, Node, Scalar
from dstack.model.job import Reason, Resources, Retry
from dstack.model.mapping_keys import Keys
from dstack.model.problems import Misread, Problems, nearest, shown
from dstack.model.units import parse_duration, parse_size

MAX_CPU = 4096
MAX_RETRIES = 100
LEAST_MEMORY = 6 * 1024 * 1024  # Docker refuses less

_RETRIED = tuple(reason for reason in Reason if reason not in {Reason.OK, Reason.STOPPED, Reason.ABORTED})


def resources(node: Node, problems: Problems) -> Resources:
    """What a runner must have free."""
    keys = Keys(fields.mapping(node, "`resources`"), problems)
    gpus = frozenset(key.text for key, _ in keys.node.entries if key.text.endswith("/gpu"))
    keys.refuse("resources", vocabulary.RESOURCES_NOW, vocabulary.RESOURCES_LATER | gpus)
    return Resources(
        cpu=keys.read("cpu", partial(_cpu, problems=problems), None),
        memory=keys.read("memory", partial(_size, what="`memory`", least=LEAST_MEMORY), None),
        shm_size=keys.read("shm-size", partial(_size, what="`shm-size`", least=1), None),
    )


def _cpu(node: Node, problems: Problems) -> float | None:
    if isinstance(node, Mapping):
        keys = Keys(node, problems)
        keys.refuse("`cpu`", ("count",), frozenset())
        if "count" not in keys:
            raise Misread(node.mark, "`cpu` has no `count`")
        return keys.read("count", partial(fields.number, what="`count`", most=MAX_CPU), None)
    return fields.number(node, "`cpu`", most=MAX_CPU)


def _size(node: Node, what: str, least: int) -> int:
    size = fields.measured(node, what, parse_size)
    if size < least:
        raise Misread(node.mark, f"{what} must be at least {least} bytes")
    return size


def duration(node: Node, what: str) -> float:
    """Seconds."""
    return fields.measured(node, what, parse_duration)


def timeout(node: Node) -> float:
    """Seconds, not none."""
    seconds = duration(node, "`timeout`")
    if not seconds:
        raise Misread(node.mark, "`timeout` must be longer than 0: leave it out for no limit")
    return seconds


def retry(node: Node, problems: Problems) -> Retry:
    """How often to try again, and on what."""
    count = partial(fields.integer, least=0, most=MAX_RETRIES)
    if isinstance(node, Scalar):
        return Retry(attempts=count(node, "`retry`"))
    keys = Keys(fields.mapping(node, "`retry`"), problems)
    keys.refuse("retry", ("attempts", "on", "backoff"), frozenset())
    if "attempts" not in keys:
        raise Misread(node.mark, "`retry` has no `attempts`: say how often to try again")
    return Retry(
        attempts=keys.read("attempts", partial(count, what="`attempts`"), 0),
        on=keys.read("on", lambda on: tuple(dict.fromkeys(fields.each(on, "`on`", problems, _reason))), ()),
        backoff=keys.read("backoff", partial(duration, what="`backoff`"), 0.0),
    )


def _reason(node: Node) -> Reason:
    text = fields.text(node, "a reason")
    if text in _RETRIED:
        return Reason(text)
    hint = nearest(text, _RETRIED) or f": write some of {', '.join(_RETRIED)}"
    raise Misread(node.mark, f"{shown(text)} is no reason to try again{hint}")
