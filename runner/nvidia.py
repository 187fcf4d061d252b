"""GPUs of this machine, as `nvidia-smi` tells them, and what a job's environment says of those it was given."""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dstack.model.errors import Invalid
from dstack.model.gpus import Gpu
from dstack.model.job import Job
from dstack.model.units import parse_size

LOG = logging.getLogger(__name__)

QUERY = ("--query-gpu=index,name,memory.total,uuid", "--format=csv,noheader,nounits")
SECONDS = 10.0
MIB = 2**20
MAX_INDEX = 1023
MAX_NAME = 100
NONE = "none"


def detected_gpus(path: str | None = None, *, seconds: float = SECONDS) -> tuple[Gpu, ...]:
    """Those that `nvidia-smi` lists; none where it is missing, fails or hangs. `path`: where to look for it (PATH)."""
    program = shutil.which("nvidia-smi", path=path)
    return parse(_listed(program, seconds)) if program else ()


def parse(text: str) -> tuple[Gpu, ...]:
    """The lines that make sense, with a warning about others; each index once."""
    found: dict[int, Gpu] = {}
    for line in text.splitlines():
        gpu = _gpu(line)
        if gpu is not None:
            found.setdefault(gpu.index, gpu)
        elif line.strip():
            LOG.warning("nvidia-smi says of a GPU what can't be understood, so it isn't offered: %.200r", line)
    return tuple(found[index] for index in sorted(found))


def chosen(settings: Sequence[str], detect: Mapping[int, Gpu]) -> tuple[Gpu, ...]:
    """What settings (`none`, `INDEX`, `INDEX=NAME:MEMORY`) offer. A GPU that isn't there (any more) is left out."""
    found: dict[int, Gpu] = {}
    for text in settings:
        index, gpu = read_setting(text)
        known = gpu or detect.get(index)
        if known is not None:
            found[index] = known
        elif text != NONE:
            LOG.warning("GPU %d is in the settings, and nvidia-smi doesn't show it: it isn't offered", index)
    return tuple(found[index] for index in sorted(found))


def read_setting(text: str) -> tuple[int, Gpu | None]:
    """The index, and the GPU where it is described. Raises Invalid."""
    if text == NONE:
        return -1, None
    number, described, details = text.partition("=")
    name, _, memory = details.rpartition(":")
    if number.isdecimal() and number.isascii() and int(number) <= MAX_INDEX:
        if not described:
            return int(number), None
        if _is_name(name):
            return int(number), Gpu(index=int(number), name=name.strip(), memory=parse_size(memory))
    msg = f"{text[:100]!r} is no GPU: say `none`, an index like 0, or all of it like '0=Tesla V100:16GB'"
    raise Invalid(msg)


def environment(job: Job, indices: Sequence[int]) -> Mapping[str, str]:
    """A job sees the GPUs it was given and no others: by CUDA's variables, in a container by those of its runtime."""
    text = ",".join(map(str, indices))
    if job.image:
        return {"NVIDIA_VISIBLE_DEVICES": text or "void"}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": text}


def indices_of(text: str) -> tuple[int, ...]:
    """GPUs by their indices, with commas between them; what is none is left out."""
    return tuple(int(part) for part in text.split(",") if part.isascii() and part.isdecimal())


def _listed(program: str, seconds: float) -> str:
    """What it prints, in a session of its own: a driver that hangs makes a process that even SIGKILL doesn't end."""
    try:
        child = subprocess.Popen(
            [program, *QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        LOG.warning("nvidia-smi can't be started, so no GPU is offered: %s", error)
        return ""
    try:
        out, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        LOG.warning("nvidia-smi has not answered within %g s, so no GPU is offered", seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=1.0)
        return ""
    if child.returncode != 0:
        said = out.decode(errors="replace").strip()[:200]
        LOG.warning("nvidia-smi ended with %d, so no GPU is offered: %s", child.returncode, said)
        return ""
    return out.decode(errors="replace")


def _gpu(line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) < 4:  # noqa: PLR2004 (index, name, memory, uuid)
        return None
    index, name, memory = fields[0], ", ".join(fields[1:-2]), fields[-2]
    good = all(text.isascii() and text.isdecimal() and len(text) < 10 for text in (index, memory))  # noqa: PLR2004 (sane)
    if not good or int(index) > MAX_INDEX or not _is_name(name):
        return None
    return Gpu(index=int(index), name=name, memory=int(memory) * MIB)


def _is_name(text: str) -> bool:
    return 0 < len(text.strip()) <= MAX_NAME and text.isprintable()
