"""A job: the fully resolved spec of one workflow and matrix combination, as a git object (DESIGN section 5)."""

import re
from enum import StrEnum

from dstack.model.codec import Value, blob_id, decode, encode

JOB_LIMIT = 2 * 1024 * 1024

_MATRIX_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", re.ASCII)


class Reason(StrEnum):
    """Why a job ended: the closed list that users key retries on."""

    OK = "ok"
    EXIT = "exit"
    OOM = "oom"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    ABORTED = "aborted"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    IMAGE_PULL = "image-pull"
    IMAGE_AUTH = "image-auth"
    CHECKOUT = "checkout"
    INPUT_MISSING = "input-missing"
    UPLOAD_FAILED = "upload-failed"
    DISK_FULL = "disk-full"
    REJECTED = "rejected"
    SIGNATURE = "signature"
    DEPENDENCY = "dependency"
    INVALID = "invalid"
    INTERNAL = "internal"


class Shell(StrEnum):
    """What runs the commands: `sh -e`, or `bash -eo pipefail`."""

    SH = "sh"
    BASH = "bash"


class Pull(StrEnum):
    """When an image is pulled: where the runner hasn't got it, or for every job."""

    MISSING = "missing"
    ALWAYS = "always"


class Gpus(Value, frozen=True, kw_only=True):
    """How many GPUs of which kind: `name` as makers and people write it, `memory` of each in bytes; empty: any."""

    count: int
    name: str = ""
    memory: int = 0


class Resources(Value, frozen=True, kw_only=True):
    """What a job needs. `cpu` in cores, `memory` and `shm_size` in bytes; None: unlimited, but a cpu counts as one.

    `interruptible`: whether it may run where the machine can be taken away.
    """

    cpu: float | None = None
    memory: int | None = None
    shm_size: int | None = None
    gpu: Gpus | None = None
    interruptible: bool = False


class Retry(Value, frozen=True, kw_only=True):
    """`attempts` further tries on the reasons named (empty: every failure but stop and abort); `backoff` in seconds."""

    attempts: int = 0
    on: tuple[Reason, ...] = ()
    backoff: float = 0.0


class Need(Value, frozen=True, kw_only=True):
    """A job of the same run that must be DONE first, and whose artifacts are inputs.

    `under` is empty, or the `name=value,…` folder its artifacts appear under when several jobs of a matrix are needed.
    """

    job: str
    workflow: str
    under: str = ""


class Tagged(Value, frozen=True, kw_only=True):
    """Artifacts of a tag that are inputs: a manifest's digest in `store` (empty: the run's own); `under` as in Need.

    `workflow` is empty where the tag holds files from a folder.
    """

    tag: str
    workflow: str = ""
    manifest: str
    store: str = ""
    under: str = ""


class Volume(Value, frozen=True, kw_only=True):
    """A folder that runners offer as `name`, at `path` in the job (absolute, or relative to its working folder)."""

    name: str
    path: str
    read_only: bool = False


class Job(Value, frozen=True, kw_only=True):
    """One job. Its id depends on every field, and on the run through `root`.

    `matrix`, `variables` and `environment` map names to text. `artifacts` are relative to `working_dir`, or absolute in
    a container; `saves` maps some of them to seconds between two saves while the job runs; `metrics` are JSON files
    among them. `include` are globs of the repository's files it sees, empty: all. `timeout` and `stop_grace` are in
    seconds. `max_parallel`: so many jobs of this workflow of this run at once. `secrets` are names alone.
    """

    version: int = 1
    root: str
    workflow: str
    matrix: dict[str, str] = {}
    image: str | None = None
    pull: Pull = Pull.MISSING
    shell: Shell = Shell.SH
    commands: tuple[str, ...]
    environment: dict[str, str] = {}
    variables: dict[str, str] = {}
    needs: tuple[Need, ...] = ()
    tagged: tuple[Tagged, ...] = ()
    include: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    saves: dict[str, float] = {}
    metrics: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cache_dirs: tuple[str, ...] = ()
    max_parallel: int | None = None
    working_dir: str = "."
    resources: Resources = Resources()
    timeout: float | None = None
    stop_grace: float = 30.0
    retry: Retry | None = None
    cache: bool = True
    labels: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For people: `train`, or `train[lr=0.1,seed=2]`."""
        return f"{self.workflow}[{matrix_text(self.matrix)}]" if self.matrix else self.workflow


def matrix_text(matrix: dict[str, str]) -> str:
    """`name=value,…` in the order of names."""
    return ",".join(f"{name}={value}" for name, value in sorted(matrix.items()))


def matrix_key(matrix: dict[str, str]) -> str:
    """`matrix_text`, or JSON where that could be read as other values: a value may hold `,name=` itself."""
    text = matrix_text(matrix)
    return text if matrix_of(text) == matrix else encode(matrix).decode()


def matrix_of(text: str) -> dict[str, str]:
    """Inverse of `matrix_key`. Raises Invalid."""
    if text.startswith("{"):
        return decode(text.encode(), dict[str, str], "a matrix key", limit=JOB_LIMIT)
    found: dict[str, str] = {}
    name = ""
    for piece in text.split(",") if text else ():
        start, equals, value = piece.partition("=")
        if equals and start > name and _MATRIX_NAME.fullmatch(start):
            name, found[start] = start, value
        elif name:
            found[name] += f",{piece}"
    return found


def to_bytes(job: Job) -> bytes:
    """The content of the job's blob."""
    return encode(job)


def job_oid(job: Job) -> str:
    """The full id of the job's blob; notes are attached to it."""
    return blob_id(to_bytes(job))


def from_bytes(data: bytes) -> Job:
    """Parse a job's blob. Raises Invalid."""
    return decode(data, Job, "job object", limit=JOB_LIMIT)


def short(oid: str) -> str:
    """A job's id as users see it: the first 12 digits."""
    return oid[:12]
