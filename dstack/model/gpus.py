"""GPUs: what a machine has, what a job asks for, and which ones it gets. Pure."""

import re
from collections.abc import Iterable, Sequence

from dstack.model.codec import Value
from dstack.model.job import Gpus
from dstack.model.units import size_text

_WORDS = re.compile(r"[a-z0-9]+", re.ASCII)


class Gpu(Value, frozen=True, kw_only=True):
    """One GPU of a machine. `index` in the order of PCI bus ids, as `nvidia-smi` shows it; `memory` in bytes."""

    index: int
    name: str
    memory: int


def suits(gpu: Gpu, wanted: Gpus) -> bool:
    """Whether this is such a GPU. `V100` is a `Tesla V100-SXM2-16GB`; an `A10` is no `A100`."""
    return gpu.memory >= wanted.memory and _is_called(gpu.name, wanted.name)


def pick(free: Iterable[Gpu], wanted: Gpus | None) -> tuple[Gpu, ...] | None:
    """The GPUs to give, the smallest that suit first; None where there aren't enough, () where none are wanted."""
    if wanted is None:
        return ()
    suiting = sorted((gpu for gpu in free if suits(gpu, wanted)), key=lambda gpu: (gpu.memory, gpu.index))
    return tuple(suiting[: wanted.count]) if len(suiting) >= wanted.count else None


def lacking(total: Sequence[Gpu], wanted: Gpus | None) -> str:
    """Why a machine with these can never give what is wanted; empty if it can."""
    if wanted is None or pick(total, wanted) is not None:
        return ""
    if not total:
        return "has no GPU"
    if len(total) < wanted.count:
        return f"has {len(total)} GPU{'s' if len(total) > 1 else ''} in all"
    return f"has {sum(suits(gpu, wanted) for gpu in total)} of {text(wanted)}"


def text(wanted: Gpus) -> str:
    """For people: `2 GPUs (V100, 16GB each)`."""
    details = [*([wanted.name] if wanted.name else []), *([size_text(wanted.memory)] if wanted.memory else [])]
    count = f"{wanted.count} GPU{'s' if wanted.count > 1 else ''}"
    return (
        f"{count} ({', '.join(details)}{' each' if wanted.memory and wanted.count > 1 else ''})" if details else count
    )


def _is_called(name: str, wanted: str) -> bool:
    """Whether some of the name's words, side by side, are what is wanted: `rtx3090` is in `GeForce RTX 3090`."""
    words, looked_for = _WORDS.findall(name.lower()), "".join(_WORDS.findall(wanted.lower()))
    return not looked_for or any(
        "".join(words[first:last]) == looked_for
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    )
