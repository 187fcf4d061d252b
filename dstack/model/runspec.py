"""`run.yaml`: what was submitted (the root, fixed) and what is wanted now (the tip) — DESIGN section 4."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from dstack.model.codec import Value

Utc = Annotated[datetime, Meta(tz=True)]


class Desired(StrEnum):
    """What is wanted of a run or an attempt."""

    RUN = "run"
    STOP = "stop"
    ABORT = "abort"


class Via(StrEnum):
    """What made the run."""

    CLI = "cli"
    PUSH = "push"
    SCHEDULE = "schedule"
    PULL_REQUEST = "pull-request"
    API = "api"


class TriggerEvent(StrEnum):
    """What happened to the code, or on the clock."""

    PUSH = "push"
    TAG = "tag"
    PULL_REQUEST = "pull-request"
    SCHEDULE = "schedule"

    @property
    def via(self) -> Via:
        """What made the run: a tag is pushed, too."""
        return Via.PUSH if self is TriggerEvent.TAG else Via(self.value)


class Trigger(Value, frozen=True, kw_only=True):
    """What started the run, where no user did.

    `ref`: the full ref in the code remote, or `schedule/<workflow>`. `commit` is where it was then, and `before` where
    it was when it was last looked at, if it was there. `slot`: the time of the schedule, RFC 3339 in UTC. `key` is one
    for every run that is to be made (DESIGN section 11). `by`: whom the commit names, as `Name <mail>`. `pull`: the
    number of the pull request; `fork`: its head is in no branch of the repository.
    """

    event: TriggerEvent
    ref: str
    before: str | None = None
    commit: str
    slot: str | None = None
    key: str
    by: str = ""
    pull: int | None = None
    fork: bool = False


class Options(Value, frozen=True, kw_only=True):
    """How the run is to be treated. A higher `priority` goes first. `only`: the one runner it may use (`--local`)."""

    priority: int = 0
    cache: bool = True
    tag: str | None = None
    only: str | None = None


class Code(Value, frozen=True, kw_only=True):
    """Where the snapshot comes from: `snapshot` is what runs; the rest is for people.

    `contents` maps each workflow of the graph to the digest of the files it depends on.
    """

    url: str | None = None
    branch: str | None = None
    commit: str
    snapshot: str
    contents: dict[str, str] = {}


class TagContent(Value, frozen=True, kw_only=True):
    """A tag as it was when the run was submitted: the tagged commit, the store, and manifests that can be inputs.

    `manifests` maps workflows (empty: a tag made of files) to manifests by `matrix_key` (empty: no matrix).
    """

    root: str
    store: str
    manifests: dict[str, dict[str, str]] = {}


class RunSpec(Value, frozen=True, kw_only=True):
    """The fixed part, read from the root alone.

    `variables` holds overrides by section (a workflow's name, or `global`), as typed. `matrix` selects values of the
    workflow's own matrix; `sweeps`, by section, adds variables to matrices, or selects values of a dependency's.
    `environment` was taken from the submitter. `tags` are those that it depends on, as they were. `source` names the
    run that `--from` took it from. `nonce` makes every root unique.
    """

    version: int = 1
    repository: str
    run: str
    workflow: str
    variables: dict[str, dict[str, str]] = {}
    matrix: dict[str, tuple[str, ...]] = {}
    sweeps: dict[str, dict[str, tuple[str, ...]]] = {}
    environment: dict[str, str] = {}
    code: Code
    tags: dict[str, TagContent] = {}
    source: str | None = None
    planner: int = 1
    submitted_by: str
    submitted_at: Utc
    via: Via = Via.CLI
    trigger: Trigger | None = None
    options: Options = Options()
    nonce: str


class Wanted(Value, frozen=True, kw_only=True):
    """The changing part, read from the tip. It holds for its `generation` only. `jobs`: stop or abort single jobs.

    A generation behind the run's own asks to resume it; `clean`: from nothing. `root` is None in the root itself, whose
    id it can't contain.
    """

    root: str | None = None
    desired: Desired = Desired.RUN
    jobs: dict[str, Desired] = {}
    generation: int = 1
    clean: bool = False
