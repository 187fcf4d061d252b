"""Whether an engine's limits take effect: some engines take them and do nothing. Pure: a script to run, and its answer.

Asked for is what no machine has by itself, so that a limit that is there is the engine's.
"""

from collections.abc import Collection

from dstack.model.job import Resources

CPU, MEMORY, SHM = 0.5, 64 * 1024**2, 16 * 1024**2
# cgroup v2, then v1; the container's own group stands at the top, or, without a namespace, below.
FILES = {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "cpu": ("cpu.max", "cpu/cpu.cfs_quota_us"),
    "pids": ("pids.max", "pids/pids.max"),
}
SCRIPT = f"""
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
for file in {" ".join(name for names in FILES.values() for name in names)}; do
    for place in /sys/fs/cgroup "/sys/fs/cgroup$own"; do
        if [ -r "$place/$file" ]; then echo "$file $(cat "$place/$file")"; break; fi
    done
done
echo "shm $(df -k /dev/shm | tail -n 1)"
"""


def without_effect(answer: str, pids: int) -> tuple[str, ...]:
    """The limits that had none, as users write them (`pids`: dstack's own, and how many were asked for)."""
    found = {words[0]: words[1] for line in answer.splitlines() if len(words := line.split()) > 1}
    most = {"memory": MEMORY, "cpu": int(CPU * 1_000_000), "pids": pids}
    bad = [name for name, files in FILES.items() if not any(_holds(found.get(file), most[name]) for file in files)]
    held = any(line.startswith("shm ") and line.split()[2:3] == [str(SHM // 1024)] for line in answer.splitlines())
    return tuple(bad) if held else (*bad, "shm-size")


def warning(names: tuple[str, ...]) -> str:
    """For the log and `doctor`."""
    return (
        f"Docker on this machine takes limits on {', '.join(names)} and does not enforce them: a job can use more than "
        "it asked for. Use an engine that runs as root, or give it the cgroup controllers it lacks (`docker info`)"
    )


def unheeded(resources: Resources, unlimited: Collection[str]) -> str:
    """What a job is told whose limits have no effect on this runner; empty where they have, or it has none."""
    asked = {"memory": resources.memory, "cpu": resources.cpu, "shm-size": resources.shm_size}
    names = [name for name, value in asked.items() if value is not None and name in unlimited]
    if not names:
        return ""
    return (
        f"Docker on this runner does not enforce the limit on {' and '.join(names)}: nothing stops it from using more"
    )


def _holds(text: str | None, most: int) -> bool:
    return text is not None and text.isdecimal() and 0 < int(text) <= most
