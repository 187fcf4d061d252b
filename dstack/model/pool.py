"""What runners say of themselves, registration in git and heartbeat in the store; and what is assigned to them."""

from enum import StrEnum

from dstack.model.codec import Value
from dstack.model.gpus import Gpu
from dstack.model.runspec import Desired, Utc


class RunnerState(StrEnum):
    """What a runner announces."""

    LIVE = "live"
    DRAINING = "draining"
    GONE = "gone"


class Phase(StrEnum):
    """Where an attempt is, by its runner."""

    WAITING = "waiting"
    PREPARING = "preparing"
    RUNNING = "running"
    UPLOADING = "uploading"
    ENDED = "ended"


class Capacity(Value, frozen=True, kw_only=True):
    """`cpu` in cores, `memory` in bytes."""

    cpu: float
    memory: int
    gpus: tuple[Gpu, ...] = ()


class Registration(Value, frozen=True, kw_only=True):
    """`runner.json` in `refs/dstack/runners/<runner>`. `instance` is the state folder's id, `start` this start's nonce.

    `private`: for the one run that names it (`--local`), placed on by nobody else. `volumes` are the names of folders
    it offers. `interruptible`: the machine can be taken away at any time. `forks`: it runs the code of forks.
    """

    version: int = 1
    repository: str
    runner: str
    instance: str
    start: str
    host: str
    capacity: Capacity
    labels: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    software: str = ""
    volumes: tuple[str, ...] = ()
    interruptible: bool = False
    forks: bool = False
    private: bool = False
    store: str
    state: RunnerState = RunnerState.LIVE
    at: Utc


class Transfer(Value, frozen=True, kw_only=True):
    """How far something large is: bytes done, of how many known so far. `what`: image, input, artifacts."""

    what: str
    done: int
    total: int


class Heartbeat(Value, frozen=True, kw_only=True):
    """`runners/<runner>.<instance>.json` in the store.

    `attempts` maps `<job>.<attempt>` to its phase. `assignment` is the assignment commit last read. `polls` counts
    successful polls of the remote. `retry_after`: seconds the remote told the runner to stay away. `pause`: why this
    start begins nothing for now, so that attempts named as waiting may be taken back; empty while it does. `pauses`:
    the same of single executors, by name. `unlimited`: resources whose limits its Docker takes and does not enforce.
    `transfers`: of attempts that fetch or send now, by `<job>.<attempt>`, as of this beat; for people only.
    """

    version: int = 1
    runner: str
    instance: str
    start: str
    beats: int
    polls: int
    assignment: str | None = None
    attempts: dict[str, Phase] = {}
    free: Capacity
    retry_after: float | None = None
    pause: str = ""
    pauses: dict[str, str] = {}
    unlimited: tuple[str, ...] = ()
    transfers: dict[str, Transfer] = {}
    at: Utc


class Input(Value, frozen=True, kw_only=True):
    """Artifacts to put in place before the commands: a manifest's digest, and the folder they appear under (or '').

    `job` is empty where they are a tag's. `store` is empty where it is the attempt's own.
    """

    job: str
    manifest: str
    under: str = ""
    store: str = ""


class Attempt(Value, frozen=True, kw_only=True):
    """`attempt.json` in an assignment: all a runner needs beside the job object.

    `run` is a RunKey's text. `order` sorts a runner's backlog. `log` is a key prefix without trailing slash.
    """

    version: int = 1
    repository: str
    run: str
    root: str
    snapshot: str
    job: str
    attempt: int
    generation: int = 1
    instance: str
    nonce: str
    inputs: tuple[Input, ...] = ()
    restore: str | None = None
    log: str
    store: str
    order: str = ""
    desired: Desired = Desired.RUN

    @property
    def key(self) -> str:
        """`<job>.<attempt>`: unique over all runs."""
        return attempt_key(self.job, self.attempt)


def attempt_key(job: str, attempt: int) -> str:
    """How heartbeats, assignments and runners name an attempt: the job's 12 digits, a dot, the number."""
    return f"{job[:12]}.{attempt}"
