"""What this machine has for jobs: the processors, memory and GPUs that this process may use."""

import os
from pathlib import Path

from dstack.model.pool import Capacity
from runner.nvidia import detected_gpus

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def detected(cgroups: Path = CGROUPS, meminfo: Path = MEMINFO) -> Capacity:
    """Processors by affinity and memory by the kernel, within the limits of the control group (version 2 or 1)."""
    cpus = float(len(os.sched_getaffinity(0)))
    memory = _total(meminfo)
    quota, limit = _quota(cgroups), _limit(cgroups)
    return Capacity(
        cpu=min(cpus, quota) if quota else cpus,
        memory=min(memory, limit) if limit else memory,
        gpus=detected_gpus(),
    )


def _total(meminfo: Path) -> int:
    for line in _text(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal" and (kilobytes := value.split()) and kilobytes[0].isdecimal():
            return int(kilobytes[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time. https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max: quota and period)."""
    both = _text(cgroups / "cpu.max").split() or [
        _text(cgroups / "cpu" / "cpu.cfs_quota_us").strip(),
        _text(cgroups / "cpu" / "cpu.cfs_period_us").strip(),
    ]
    if len(both) != 2 or not all(text.isdecimal() for text in both) or not int(both[1]):  # noqa: PLR2004 (a pair)
        return None
    return int(both[0]) / int(both[1]) or None


def _limit(cgroups: Path) -> int | None:
    text = _text(cgroups / "memory.max") or _text(cgroups / "memory" / "memory.limit_in_bytes")
    return int(text) if text.strip().isdecimal() and int(text) else None


def _text(path: Path) -> str:
    """Empty where there is none: not every machine has every file."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
