"""How a job's commands are handed to a shell: by file, never quoted. Asked to stop, the shell waits for them first."""

import secrets
from pathlib import Path

from dstack.model.job import Job, Reason, Shell
from runner.executor import StartFailed

SHELLS = {Shell.SH: ("sh", "-e"), Shell.BASH: ("bash", "-eo", "pipefail")}

# The signal reaches every process of the job. A shell without a trap would die at once and leave its child, which may
# be saving a checkpoint, without a parent (in a container: without a life). With one it ends after its child.
ON_TERM = "trap 'exit 143' TERM; "

# In a container everything dies with the shell, so it also waits for what went into the background: until only the
# init process and itself are left, or SIGKILL comes.
ON_TERM_IN_CONTAINER = (
    "trap 'wait; while set -- /proc/[0-9]*; [ $# -gt 2 ]; do sleep 0.1 || sleep 1; done; exit 143' TERM; "
)


def shell(job: Job) -> tuple[str, ...]:
    """The arguments before the script's path."""
    return SHELLS[job.shell]


def write(path: Path, script: str, on_term: str) -> None:
    """Write the script. The trap shares the first line, so that line numbers in the shell's messages stay right."""
    # By rename: a shell reads its script as it goes, and one that runs already must not find it cut off.
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    new.write_bytes((on_term + script + "\n").encode(errors="surrogateescape"))
    new.replace(path)


def start_folder(tree: Path, job: Job) -> Path:
    """Where the commands start, on this machine. Raises StartFailed where it is missing or outside of the checkout."""
    folder = tree / job.working_dir
    if not folder.resolve().is_relative_to(tree.resolve()):
        msg = f"working-dir {job.working_dir!r} leads out of the repository: name a folder inside it"
        raise StartFailed(Reason.INVALID, msg)
    if not folder.is_dir():
        why = "is it ignored, or not in repo.include?"
        msg = f"working-dir {job.working_dir!r} is not a folder of the repository as submitted ({why})"
        raise StartFailed(Reason.INVALID, msg)
    return folder
