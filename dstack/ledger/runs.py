"""Run branches: the root that says what was submitted, and the commits behind it that say what is wanted now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from dstack.ledger.objects import FILE, Commit, Entry, Objects, Tree
from dstack.model.errors import Invalid
from dstack.model.observation import BrokenRun, RunRecord
from dstack.model.runspec import RunSpec, Wanted

RUN = b"run.yaml"
WORKFLOWS = b"workflows.yaml"
VARIABLES = b"variables.yaml"
RUN_LIMIT = 1024 * 1024
FILE_LIMIT = 1024 * 1024
# Writes a commit (tree, parents, message) and gives its full id.
WriteCommit = Callable[[str, Sequence[str], str], str]

# Each stop, abort or resume is one commit; a branch with more of them was not made by dstack.
CHAIN_LIMIT = 10_000


class RunText(Protocol):
    """How `run.yaml` is written and read: `dstack.model.runtext`."""

    def to_text(self, spec: RunSpec, wanted: Wanted) -> str:
        """The text of `run.yaml`."""
        ...

    def from_text(self, data: bytes) -> tuple[RunSpec, Wanted]:
        """Parse untrusted `run.yaml`. Raises Invalid."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFiles:
    """The blobs that a root takes over from its snapshot, by id."""

    workflows: str
    variables: str | None


def read_run(objects: Objects, text: RunText, name: str, tip: str) -> RunRecord | BrokenRun:
    """The run at the branch tip `tip`, its root verified. Raises Damaged only."""
    try:
        return _read_run(objects, text, name, tip)
    except Invalid as error:
        return BrokenRun(name=name, tip=tip, problem=str(error))


def write_root(
    objects: Objects, text: RunText, spec: RunSpec, files: RootFiles, write: WriteCommit | None = None
) -> str:
    """The id of a run's first commit. `write`: who writes the commit, where it is to be signed."""
    tree = {RUN: _run_entry(objects, text, spec, Wanted()), WORKFLOWS: Entry(FILE, files.workflows)}
    if files.variables is not None:
        tree[VARIABLES] = Entry(FILE, files.variables)
    message = f"Run {spec.run}: {spec.workflow} [skip ci]\n\nBy {_one_line(spec.submitted_by)}\nskip-checks: true"
    return (write or objects.write_commit)(objects.write_tree(tree), [], message)


def write_wanted(
    objects: Objects, text: RunText, record: RunRecord, wanted: Wanted, write: WriteCommit | None = None
) -> str:
    """The id of the commit that appends what is wanted now to the branch of `record`. Raises Invalid, Damaged."""
    tree = dict(objects.tree(objects.commit(record.tip).tree))
    told = replace_root(wanted, record.root)
    tree[RUN] = _run_entry(objects, text, record.spec, told)
    named = " ".join(f"{job}:{desired}" for job, desired in sorted(told.jobs.items())[:10])
    resumes = told.generation > record.wanted.generation
    subject = f"Run {record.name}: {'resume' if resumes else told.desired}{f' ({named})' if named else ''} [skip ci]"
    tree_id = objects.write_tree(tree)
    return (write or objects.write_commit)(tree_id, [record.tip], f"{subject}\n\nskip-checks: true")


def replace_root(wanted: Wanted, root: str) -> Wanted:
    """`wanted` naming the root, whatever it named."""
    return msgspec.structs.replace(wanted, root=root)


def _read_run(objects: Objects, text: RunText, name: str, tip: str) -> RunRecord:
    commit = objects.commit(tip)
    wanted = Wanted() if not commit.parents else _read_yaml(objects, text, commit)[1]
    root = _root_of(objects, tip, commit)
    if commit.parents and wanted.root != root:
        msg = f"run.yaml at the tip names the root {wanted.root}, but its branch begins with {root}"
        raise Invalid(msg)
    first = objects.commit(root)
    tree = objects.tree(first.tree)
    spec, begun = _read_yaml(objects, text, first)
    if spec.run != name or begun.root is not None:
        msg = f"run.yaml of the first commit is that of the run {spec.run!r}, not of {name!r}"
        raise Invalid(msg)
    return RunRecord(
        name=name,
        tip=tip,
        root=root,
        spec=spec,
        wanted=wanted if commit.parents else begun,
        workflows=_file(objects, tree, WORKFLOWS),
        variables=_file(objects, tree, VARIABLES) if VARIABLES in tree else None,
    )


def _root_of(objects: Objects, tip: str, commit: Commit) -> str:
    """The end of the first-parent chain."""
    at = tip
    for _ in range(CHAIN_LIMIT):
        if not commit.parents:
            return at
        at = commit.parents[0]
        commit = objects.commit(at)
    msg = f"the branch has more than {CHAIN_LIMIT} commits"
    raise Invalid(msg)


def _read_yaml(objects: Objects, text: RunText, commit: Commit) -> tuple[RunSpec, Wanted]:
    return text.from_text(_file(objects, objects.tree(commit.tree), RUN))


def _file(objects: Objects, tree: Tree, name: bytes) -> bytes:
    if name not in tree:
        msg = f"{name.decode()} is missing"
        raise Invalid(msg)
    return objects.blob(tree[name].oid, name.decode(), limit=RUN_LIMIT if name == RUN else FILE_LIMIT)


def _run_entry(objects: Objects, text: RunText, spec: RunSpec, wanted: Wanted) -> Entry:
    return Entry(FILE, objects.write_blob(text.to_text(spec, wanted).encode()))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
