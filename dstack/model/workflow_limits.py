"""What a workflow may take: `resources`, `max-parallel`, `timeout`, `stop-grace`, `retry`; and `labels`."""

from functools import partial

from dstack.model import fields, language
from dstack.model.codec import lean
from dstack.model.document import Mapping, Node, Scalar
from dstack.model.job import Gpus, Reason, Resources, Retry
from dstack.model.labels import label_problem
from dstack.model.mapping_keys import Keys
from dstack.model.problems import Misread, Problems, nearest, shown
from dstack.model.units import parse_duration, parse_size

MAX_CPU = 4096
MAX_GPUS = 1024
MAX_GPU_NAME = 100
MAX_LABELS = 32
MAX_RETRIES = 100
MAX_PARALLEL = 10_000
LEAST_MEMORY = 6 * 1024 * 1024  # Docker refuses less

GPU_OF = "/gpu"

RETRIED = tuple(reason for reason in Reason if reason not in {Reason.OK, Reason.STOPPED, Reason.ABORTED})


def resources(node: Node, problems: Problems) -> Resources:
    """What a runner must have free."""
    keys = Keys(fields.mapping(node, "`resources`"), problems)
    named = tuple(key.text for key, _ in keys.node.entries if key.text.endswith(GPU_OF))
    keys.refuse("resources", (*language.RESOURCES, *named))
    return Resources(
        cpu=keys.read("cpu", partial(_cpu, problems=problems), None),
        memory=keys.read("memory", partial(_size, what="`memory`", least=LEAST_MEMORY), None),
        shm_size=keys.read("shm-size", partial(_size, what="`shm-size`", least=1), None),
        gpu=_one_kind(keys, named),
        interruptible=keys.read("interruptible", partial(fields.boolean, what="`interruptible`"), default=False),
    )


def _one_kind(keys: Keys, named: tuple[str, ...]) -> Gpus | None:
    """The GPUs of a job, which are all of one kind: `gpu: n`, `gpu: {count, name, memory}`, or `V100/gpu: n`."""
    given = (*(["gpu"] if "gpu" in keys else []), *named)
    for key, _ in keys.node.entries:
        if key.text in given[1:]:
            keys.problems.add(key.mark, f"a job gets GPUs of one kind: {given[0]} stands here already")
    if not given:
        return None
    name = given[0].removesuffix(GPU_OF) if given[0] in named else ""
    return keys.read(given[0], partial(_gpus, problems=keys.problems, name=name), None)


def _gpus(node: Node, problems: Problems, name: str) -> Gpus | None:
    count = partial(fields.integer, least=0, most=MAX_GPUS)
    if not isinstance(node, Mapping) or name:
        number, name, memory = count(node, "`gpu`"), _gpu_name(node, name), 0
    else:
        keys = Keys(node, problems)
        keys.refuse("`gpu`", language.GPU)
        number = keys.read("count", partial(count, what="`count`"), 1)
        name = keys.read("name", lambda found: _gpu_name(found, fields.text(found, "`name`")), "")
        memory = keys.read("memory", partial(_size, what="`memory`", least=1), 0)
    return lean(Gpus(count=number, name=name, memory=memory)) if number else None


def _gpu_name(node: Node, name: str) -> str:
    if len(name) <= MAX_GPU_NAME and name.isprintable() and (not name or any(map(str.isalnum, name))):
        return name
    raise Misread(node.mark, f"{shown(name)} can't be the name of a GPU: write it like V100, or RTX 3090")


def labels(node: Node, problems: Problems) -> tuple[str, ...]:
    """Labels that a runner must carry, each once."""
    found = tuple(dict.fromkeys(fields.each(node, "`labels`", problems, _label)))
    if len(found) > MAX_LABELS:
        raise Misread(node.mark, f"{len(found)} labels are too many: name at most {MAX_LABELS}")
    return found


def _label(node: Node) -> str:
    text = fields.text(node, "a label")
    if problem := label_problem(text):
        raise Misread(node.mark, problem)
    return text


def _cpu(node: Node, problems: Problems) -> float | None:
    if isinstance(node, Mapping):
        keys = Keys(node, problems)
        keys.refuse("`cpu`", language.CPU)
        if "count" not in keys:
            raise Misread(node.mark, "`cpu` has no `count`")
        return keys.read("count", partial(fields.number, what="`count`", most=MAX_CPU), None)
    return fields.number(node, "`cpu`", most=MAX_CPU)


def _size(node: Node, what: str, least: int) -> int:
    size = fields.measured(node, what, parse_size)
    if size < least:
        raise Misread(node.mark, f"{what} must be at least {least} bytes")
    return size


def max_parallel(node: Node) -> int:
    """How many jobs of a workflow may run at once."""
    return fields.integer(node, "`max-parallel`", least=1, most=MAX_PARALLEL)


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
    keys.refuse("retry", language.RETRY)
    if "attempts" not in keys:
        raise Misread(node.mark, "`retry` has no `attempts`: say how often to try again")
    return Retry(
        attempts=keys.read("attempts", partial(count, what="`attempts`"), 0),
        on=keys.read("on", lambda on: tuple(dict.fromkeys(fields.each(on, "`on`", problems, _reason))), ()),
        backoff=keys.read("backoff", partial(duration, what="`backoff`"), 0.0),
    )


def _reason(node: Node) -> Reason:
    text = fields.text(node, "a reason")
    if text in RETRIED:
        return Reason(text)
    hint = nearest(text, RETRIED) or f": write some of {', '.join(RETRIED)}"
    raise Misread(node.mark, f"{shown(text)} is no reason to try again{hint}")
