"""What a tag holds: a run, by its root; or files of a folder, by a manifest in the store (DESIGN section 3)."""

from dataclasses import dataclass

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid
from dstack.model.job import matrix_key
from dstack.model.plan import Plan
from dstack.model.problems import nearest, shown
from dstack.model.runspec import TagContent, Utc
from dstack.model.states import RunState
from dstack.model.status import Status
from dstack.model.workflow import TagNeed

LIMIT = 64 * 1024
LATEST = "latest"


class TaggedFiles(Value, frozen=True, kw_only=True):
    """`tag.yaml`: files that were stored under a tag. `manifest` is the digest of a set in `store`."""

    version: int = 1
    repository: str
    tag: str
    store: str
    manifest: str
    folder: str
    tagged_by: str
    tagged_at: Utc


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedRun:
    """A tag that names a run: `root` is the full id of its first commit, `run` its name."""

    run: str
    root: str


def to_bytes(files: TaggedFiles) -> bytes:
    """The text of `tag.yaml`: JSON, which is YAML."""
    return encode(files) + b"\n"


def from_bytes(data: bytes) -> TaggedFiles:
    """Parse an untrusted `tag.yaml`. Raises Invalid."""
    files = decode(data, TaggedFiles, "tag.yaml", limit=LIMIT)
    if files.version > 1:
        msg = f"the tag was made by a later version of dstack (version {files.version}): upgrade dstack"
        raise Invalid(msg)
    return files


def content_of_files(files: TaggedFiles, root: str) -> TagContent:
    """What a run that depends on the tag writes down of it. `root`: the tag's commit."""
    return TagContent(root=root, store=files.store, manifests={"": {"": files.manifest}})


def content_of_run(root: str, plan: Plan, state: RunState) -> TagContent:
    """Likewise, of a run: the sets of its jobs that are DONE."""
    manifests: dict[str, dict[str, str]] = {}
    for planned in plan.jobs:
        ended = state.job(planned.id)
        if ended.outcome is Status.DONE and ended.manifest:
            manifests.setdefault(planned.job.workflow, {})[matrix_key(planned.job.matrix)] = ended.manifest
    return TagContent(root=root, store=state.planned.store if state.planned else "", manifests=manifests)


def check_need(need: TagNeed, run: str, plan: Plan, state: RunState) -> None:
    """Raises Invalid where the tagged run can't serve as `workflow:tag`, with why."""
    jobs = [planned for planned in plan.jobs if planned.job.workflow == need.workflow]
    said = f"{need.workflow}:{need.tag} can't be used"
    if not jobs:
        known = {planned.job.workflow for planned in plan.jobs}
        hint = nearest(need.workflow, known) or f"; it has {', '.join(sorted(known))}"
        msg = f"{said}: the run {run}, tagged {shown(need.tag)}, has no workflow {shown(need.workflow)}{hint}"
        raise Invalid(msg)
    for planned in jobs:
        ended = state.job(planned.id)
        if ended.outcome is None:
            msg = f"{said}: its run {run} has not finished {planned.job.title}: wait, or tag another run"
            raise Invalid(msg)
        if ended.outcome is not Status.DONE:
            msg = f"{said}: {planned.job.title} of the run {run} is {ended.outcome}: tag a run that is DONE"
            raise Invalid(msg)
    if all(state.job(planned.id).manifest is None for planned in jobs):
        msg = f"{said}: {need.workflow} of the run {run} has left no artifacts"
        raise Invalid(msg)
