"""Everything about a run that can be checked before anything is pushed."""

import dataclasses
import os
import random
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cli.run_options import RunOptions
from cli.session import Seen, Session
from dstack.ledger.narrowing import Contents, contents
from dstack.ledger.snapshot import Snapshot, take_snapshot
from dstack.ledger.worktree import Choice
from dstack.model import refs
from dstack.model.again import chosen_again
from dstack.model.choices import Flags
from dstack.model.errors import Invalid
from dstack.model.plan import Plan
from dstack.model.planner import environment_names, plan_jobs
from dstack.model.run_names import new_name
from dstack.model.runspec import Code, Options, RunSpec, TagContent
from dstack.model.variables import Variables, parse_variables
from dstack.model.workflow import Workflow, Workflows
from dstack.model.workflows import parse_workflows

if TYPE_CHECKING:
    from cli.run_source import Source

NO_ROOT = "0" * 40
NAME_RANGE = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the user asked for: a workflow, and variables as typed."""

    workflow: str
    overrides: tuple[tuple[str, str], ...]
    options: RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that could be pushed now."""

    order: Order
    snapshot: Snapshot
    workflows: Workflows
    variables: Variables
    spec: RunSpec

    def plan(self, root: str = NO_ROOT) -> Plan:
        """Its jobs. Without the root, all but their ids. Raises Invalid."""
        return plan_jobs(root, self.spec, self.workflows, self.variables)

    def renamed(self, name: str) -> "Prepared":
        """The same run under another name."""
        return dataclasses.replace(self, spec=replace(self.spec, run=name, nonce=secrets.token_hex(8)))

    def of(self, repository: str) -> "Prepared":
        """The same run of this dstack repository."""
        return dataclasses.replace(self, spec=replace(self.spec, repository=repository))


def prepare(session: Session, order: Order, seen: Seen, *, only: str | None = None) -> Prepared:
    """Take the snapshot, and check the order against it. `only`: the runner it is for. Raises Invalid, Failed."""
    options = order.options
    name = _name(options, taken_names(seen))
    source = _source(session, seen, options)
    snapshot = source.snapshot if source else _taken(session, options)
    workflows = parse_workflows(snapshot.workflows.data, allow_env=frozenset(options.allow_env))
    variables = parse_variables(snapshot.variables.data if snapshot.variables else None, workflows)
    choices = Flags(workflows, variables, order.workflow).choose(order.overrides, order.options.matrix)
    if source:
        choices = chosen_again(choices, source.spec, order.workflow, workflows, variables)
    graph = workflows.graph(order.workflow)
    depends = contents(session.cache.objects, snapshot.tree, {one.name: one.include for one in graph})
    snapshot = dataclasses.replace(snapshot, warnings=(*snapshot.warnings, *depends.warnings))
    spec = RunSpec(
        repository=seen.repository or "",
        run=name,
        workflow=order.workflow,
        variables=choices.variables,
        matrix=choices.matrix,
        sweeps=choices.sweeps,
        environment=_environment(workflows, order.workflow) | _taken_then(source, workflows, order.workflow),
        code=_code(snapshot, depends),
        tags=_tags(session, seen, graph, source.spec.tags if source else {}),
        source=str(source.key) if source else None,
        submitted_by=session.me,
        submitted_at=datetime.now(UTC).replace(microsecond=0),
        options=Options(priority=options.priority, cache=not options.no_cache, tag=_tag(options), only=only),
        nonce=secrets.token_hex(8),
    )
    prepared = Prepared(order=order, snapshot=snapshot, workflows=workflows, variables=variables, spec=spec)
    prepared.plan()
    return prepared


def taken_names(seen: Seen) -> frozenset[str]:
    """Names of runs that have a branch."""
    return frozenset(name for ref in seen.found if (name := refs.parse_run_branch(ref)))


def fresh_name(taken: Collection[str]) -> str:
    """A name nobody has."""
    return new_name(random.randrange(NAME_RANGE), random.randrange(NAME_RANGE), taken)  # noqa: S311 (a name, no secret)


def _name(options: RunOptions, taken: Collection[str]) -> str:
    if options.name is None:
        return fresh_name(taken)
    refs.check_name(options.name, "run")
    if options.name in taken:
        msg = f"there is a run called {options.name!r} already: choose another --name, or leave it out"
        raise Invalid(msg)
    return options.name


def _tag(options: RunOptions) -> str | None:
    return None if options.tag is None else refs.check_tag(options.tag)


def _source(session: Session, seen: Seen, options: RunOptions) -> "Source | None":
    if options.source is None:
        return None
    from cli.run_source import source_of  # noqa: PLC0415 (it imports what most runs don't need)

    return source_of(session, seen, options)


def _taken(session: Session, options: RunOptions) -> Snapshot:
    choice = Choice(only_committed=options.only_committed, untracked=not options.no_untracked, include=options.include)
    return take_snapshot(session.code, session.cache, session.remote, choice)


def _tags(
    session: Session, seen: Seen, graph: Iterable[Workflow], then: Mapping[str, TagContent]
) -> dict[str, TagContent]:
    """Of a run made again, what its tags meant then."""
    needing = [workflow for workflow in graph if workflow.tag_needs]
    names = {need.tag for workflow in needing for need in workflow.tag_needs}
    if names <= then.keys():
        return {name: then[name] for name in sorted(names)}
    from cli.tagging import resolved  # noqa: PLC0415 (reading runs takes imports that most runs don't need)

    return dict(resolved(session, seen, needing))


def _environment(workflows: Workflows, workflow: str) -> dict[str, str]:
    return {name: os.environ[name] for name in environment_names(workflows, workflow) if name in os.environ}


def _taken_then(source: "Source | None", workflows: Workflows, workflow: str) -> dict[str, str]:
    """What the submitter of the run that is made again had in the environment, as far as it is asked for."""
    then = source.spec.environment if source else {}
    return {name: then[name] for name in environment_names(workflows, workflow) if name in then}


def _code(snapshot: Snapshot, depends: Contents) -> Code:
    return Code(
        url=snapshot.url,
        branch=snapshot.branch,
        commit=snapshot.head,
        snapshot=snapshot.commit,
        contents=dict(depends.digests),
    )
