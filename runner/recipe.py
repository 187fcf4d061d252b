"""A launch as a container: mounts, limits, labels; and why an engine may refuse to start it."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path, PurePosixPath

from dstack.model.job import Job, Reason, Resources
from dstack.model.units import size_text
from runner import lending, pull_refusals, script
from runner.engine_values import Container, Refused, State
from runner.executor import OUTPUT, Launch, StartFailed
from runner.frames import read_frame
from runner.nvidia import indices_of

TREE, SCRIPT = "/workflow", "/dstack/script"
PREFIX = "dstack."
KEY, INSTANCE, GPUS = PREFIX + "key", PREFIX + "instance", PREFIX + "gpus"
FOREIGN = PREFIX + "volumes"
SHM_DEFAULT = 1024**3
NOT_FOUND = 127
MESSAGE_BYTES = 1000


def container(launch: Launch, name: str, image: str, instance: str) -> Container:
    """What to create for an attempt. Raises StartFailed."""
    resources = launch.job.resources
    own = {KEY: launch.key, INSTANCE: instance}
    if foreign := [str(one.here) for one in launch.lent if not one.ours]:
        own[FOREIGN] = json.dumps(foreign)
    if launch.gpus:
        own[GPUS] = ",".join(map(str, launch.gpus))
    lent = ((one.here, lending.inner(launch.job, one.path), one.read_only) for one in launch.lent)
    inputs = ((here, path, False) for path, here in sorted(launch.mounts.items()))
    return Container(
        name=name,
        image=image,
        argv=(*script.shell(launch.job), SCRIPT),
        environment=launch.environment,
        folder=str(PurePosixPath(TREE, launch.job.working_dir)),
        labels={PREFIX + label: value for label, value in launch.labels.items()} | own,
        binds=((launch.tree, TREE, False), (launch.folder / "script", SCRIPT, True), *inputs, *lent),
        cpu=resources.cpu,
        memory=resources.memory,
        shm_size=shm_size(resources),
        gpus=launch.gpus,
    )


def owner(trees: Sequence[Path], image: str, name: str, labels: Mapping[str, str]) -> Container:
    """A container that gives the trees to their owner: root in a container owns what it wrote."""
    status = trees[0].stat()
    give = f"chown -hR {status.st_uid}:{status.st_gid} /given"
    return Container(
        name=owner_name(name),
        image=image,
        argv=("sh", "-c", give),
        environment={},
        folder="/",
        labels=labels,
        binds=tuple((tree, f"/given/{number}", False) for number, tree in enumerate(trees)),
        user="0",
    )


def gpus_of(labels: Mapping[str, str]) -> tuple[int, ...]:
    """The GPUs that a container was given, by its labels."""
    return indices_of(labels.get(GPUS, ""))


def ours(state: State) -> list[Path]:
    """The folders here that a container may write in, without the volumes: whose these are is not for us to change."""
    foreign = json.loads(state.labels.get(FOREIGN, "[]"))
    return [path for path in state.binds if str(path) not in foreign]


def owner_name(name: str) -> str:
    """The name of the container that gives back what the container `name` wrote."""
    return f"{name}-owner"


def shm_size(resources: Resources) -> int:
    """Bytes of shared memory: as asked for, else half the memory limit, else 1 GiB."""
    return resources.shm_size or (resources.memory // 2 if resources.memory else SHM_DEFAULT)


def out_of_memory(resources: Resources) -> str:
    """What happened, and what to do."""
    if resources.memory is None:
        return "it was killed because the runner's machine had no memory left: give it a limit with resources.memory"
    return f"it needed more memory than its limit of {size_text(resources.memory)}: raise resources.memory"


def shell_trouble(launch: Launch, state: State) -> tuple[Reason | None, str]:
    """The init process says on stderr that the shell isn't there, and ends with 127, as a shell does for a command."""
    if state.exit_code != NOT_FOUND:
        return None, ""
    told = f"exec {launch.job.shell} failed: No such file or directory\n".encode()
    return (Reason.INVALID, no_shell(launch.job)) if _beginning(launch).endswith(told) else (None, "")


def _beginning(launch: Launch) -> bytes:
    """The output's first pieces: one message may come in several."""
    said = b""
    with (launch.folder / OUTPUT).open("rb") as file:
        while len(said) < MESSAGE_BYTES and (frame := read_frame(file)) is not None:
            said += frame.data
    return said


def no_shell(job: Job) -> str:
    """What to do about an image without the shell."""
    return (
        f"the image {job.image} has no {job.shell}: use an image that has it (not a distroless one), or another shell"
    )


def refusal(job: Job, refused: Refused) -> StartFailed:
    """Why the engine would not start the container, with what to do."""
    words = refused.words
    if "executable file not found" in words or f'exec: "{job.shell}"' in words:
        return StartFailed(Reason.INVALID, no_shell(job))
    if "could not select device driver" in words:
        msg = f"Docker can't give GPUs to containers here: install the NVIDIA Container Toolkit ({words})"
        return StartFailed(Reason.INTERNAL, msg)
    if pull_refusals.FULL in words.lower():
        return StartFailed(Reason.DISK_FULL, f"the disk of Docker on the runner is full: free some space ({words})")
    if "bind source path does not exist" in words:
        msg = f"Docker doesn't see the runner's folders: it must run on the runner's own machine, unconfined ({words})"
        return StartFailed(Reason.INTERNAL, msg)
    if refused.status == HTTPStatus.BAD_REQUEST:  # limits that the machine doesn't have
        return StartFailed(Reason.INVALID, f"Docker can't make a container of this job: {words}")
    return StartFailed(Reason.INTERNAL, f"Docker can't start the container: {words}; see its log on the runner")
