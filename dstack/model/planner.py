"""A run's root → its jobs: a pure function, so that whoever reads the root computes the same jobs with the same ids."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec.structs import replace

from dstack.model.codec import blob_id, lean
from dstack.model.combinations import Combinations, combine, shared_names
from dstack.model.errors import Invalid
from dstack.model.exclusions import Values
from dstack.model.folder_names import combination_folder
from dstack.model.job import JOB_LIMIT, Job, Need, Tagged, matrix_text, short, to_bytes
from dstack.model.names import value_problem
from dstack.model.plan import Plan, PlannedJob
from dstack.model.problems import nearest, shown
from dstack.model.runspec import RunSpec
from dstack.model.sweeps import with_sweeps
from dstack.model.tag_inputs import tag_inputs
from dstack.model.variables import GLOBAL, Variables, parse_variables
from dstack.model.workflow import Workflow, Workflows
from dstack.model.workflows import parse_workflows

PLANNER = 1
MAX_NEEDS = 200_000
MAX_PLAN = 64 * 1024 * 1024
MAX_ENVIRONMENT = 500_000  # bytes; Linux gives 2 MiB to arguments and environment, and a variable is there twice

_Made = dict[str, list[tuple[Values, PlannedJob]]]


def make_plan(root: str, spec: RunSpec, workflows: bytes, variables: bytes | None) -> Plan:
    """The jobs of the run whose root commit is `root`, from the files of that commit. Raises Invalid.

    What `env` only names is taken from `spec.environment`; what isn't there stays unset, as with `docker run -e`.
    """
    if not 1 <= spec.planner <= PLANNER:
        msg = f"this run was planned by a later dstack (planner {spec.planner}, here {PLANNER}): update dstack"
        raise Invalid(msg)
    parsed = parse_workflows(workflows, allow_env=None)
    return plan_jobs(root, spec, parsed, parse_variables(variables, parsed))


def plan_jobs(root: str, spec: RunSpec, workflows: Workflows, variables: Variables) -> Plan:
    """The same from files that are parsed already. Each job stands behind those it needs, else in the files' order."""
    graph = workflows.graph(spec.workflow)
    _check_overrides(spec, graph, variables)
    graph = with_sweeps(graph, spec, variables)
    combinations = combine(graph)
    _check_some(workflows.get(spec.workflow), combinations[spec.workflow])
    made: _Made = {}
    size = Budget("bytes of jobs", MAX_PLAN)
    needs = Budget("dependencies between jobs", MAX_NEEDS)
    for workflow in graph:
        template = _template(root, spec, workflow, variables)
        own = combinations[workflow.name]
        needed = _needs(workflow, combinations, made, needs)
        tagged = tag_inputs(workflow, own, spec.tags)
        jobs = (_job(template, matrix, needed(place), tagged(place)) for place, matrix in enumerate(own.matrices()))
        made[workflow.name] = list(zip(own.all, _planned(jobs, size), strict=True))
    plan = Plan(jobs=tuple(job for workflow in graph for _, job in made[workflow.name]))
    if len({job.id for job in plan.jobs}) < len(plan.jobs):
        msg = "two jobs of this run have the same 12 digits by chance: submit it again"
        raise Invalid(msg)
    return plan


def environment_names(workflows: Workflows, name: str) -> tuple[str, ...]:
    """The variables of the submitter's environment that a run of this workflow takes along (RunSpec.environment)."""
    graph = workflows.graph(name)
    return tuple(sorted({key for workflow in graph for key, value in workflow.environment.items() if value is None}))


class Budget:
    """Counts what a plan takes, so that a small file can't make an endless one."""

    def __init__(self, what: str, limit: int) -> None:
        """`what` is counted, up to `limit`."""
        self._what = what
        self._limit = limit
        self._left = limit

    def take(self, amount: int) -> None:
        """Raises Invalid once more than the limit is taken."""
        self._left -= amount
        if self._left < 0:
            msg = f"this run would have more than {self._limit} {self._what}; make its matrix, commands or env smaller"
            raise Invalid(msg)


def _template(root: str, spec: RunSpec, workflow: Workflow, variables: Variables) -> Job:
    """What all jobs of a workflow have in common."""
    overrides = spec.variables
    values = {
        **variables.section(GLOBAL),
        **overrides.get(GLOBAL, {}),
        **variables.section(workflow.name),
        **overrides.get(workflow.name, {}),
    }
    environment = _environment(spec, workflow)
    size = sum(len(name) + len(text.encode()) for name, text in [*values.items(), *environment.items()])
    if size > MAX_ENVIRONMENT:
        msg = f"variables and env of workflow {workflow.name!r} have {size} bytes; at most {MAX_ENVIRONMENT} fit"
        raise Invalid(msg)
    job = Job(
        root=root,
        workflow=workflow.name,
        image=workflow.image,
        pull=workflow.pull,
        shell=workflow.shell,
        commands=workflow.commands,
        environment=environment,
        variables=values,
        include=workflow.include,
        artifacts=workflow.artifacts,
        saves=dict(workflow.saves),
        metrics=workflow.metrics,
        secrets=workflow.secrets,
        volumes=tuple(lean(volume) for volume in workflow.volumes),
        cache_dirs=workflow.cache_dirs,
        max_parallel=workflow.max_parallel,
        working_dir=workflow.working_dir,
        resources=lean(workflow.resources),
        timeout=workflow.timeout,
        stop_grace=workflow.stop_grace,
        retry=lean(workflow.retry) if workflow.retry else None,
        cache=workflow.cache,
        labels=workflow.labels,
    )
    return lean(job)


def _environment(spec: RunSpec, workflow: Workflow) -> dict[str, str]:
    taken = {name: spec.environment.get(name) if text is None else text for name, text in workflow.environment.items()}
    found = {name: text for name, text in taken.items() if text is not None}
    _check_values(found, "environment variable")
    return found


def _job(template: Job, matrix: dict[str, str], needs: tuple[Need, ...], tagged: tuple[Tagged, ...]) -> Job:
    variables = {**template.variables, **matrix}
    return replace(template, matrix=matrix, variables=variables, needs=needs, tagged=tagged)


def _planned(jobs: Iterable[Job], size: Budget) -> Iterator[PlannedJob]:
    for job in jobs:
        data = to_bytes(job)
        size.take(len(data))
        if len(data) > JOB_LIMIT:
            msg = f"the job {job.title} has {len(data)} bytes; at most {JOB_LIMIT} are accepted"
            raise Invalid(msg)
        yield PlannedJob(oid=blob_id(data), job=job)


def _needs(
    workflow: Workflow, combinations: Mapping[str, Combinations], made: _Made, budget: Budget
) -> Callable[[int], tuple[Need, ...]]:
    """For the place of a combination: the jobs that it needs, in the order of `depends-on`."""
    own = combinations[workflow.name]
    columns = [_agreeing(workflow.name, own, name, combinations[name], made[name]) for name in workflow.depends_on]

    def needs(place: int) -> tuple[Need, ...]:
        found = tuple(need for column in columns for need in column[place])
        budget.take(len(found))
        return found

    return needs


def _agreeing(
    name: str, own: Combinations, other_name: str, other: Combinations, jobs: list[tuple[Values, PlannedJob]]
) -> list[tuple[Need, ...]]:
    """For each combination of `own`: those jobs of `other` that agree in the names both share."""
    common = shared_names(own, other)
    groups: dict[Values, list[PlannedJob]] = {}
    for values, (_, job) in zip(other.projected(common), jobs, strict=True):
        groups.setdefault(values, []).append(job)
    needs = {values: _group_needs(group) for values, group in groups.items()}
    wanted = own.projected(common)
    missing = next((values for values in wanted if values not in needs), None)
    if missing is not None:
        place = matrix_text(dict(zip(common, missing, strict=True)))
        msg = f"workflow {name!r} depends on {other_name!r}, whose matrix has no {shown(place)}"
        raise Invalid(msg)
    return [needs[values] for values in wanted]


def _group_needs(group: list[PlannedJob]) -> tuple[Need, ...]:
    several = len(group) > 1
    return tuple(
        Need(
            job=short(planned.oid),
            workflow=planned.job.workflow,
            under=combination_folder(planned.job.matrix) if several else "",
        )
        for planned in group
    )


def _check_some(workflow: Workflow, combinations: Combinations) -> None:
    if not combinations.all:
        msg = (
            f"no combination of the matrix of workflow {workflow.name!r} is left: look at `exclude`, and what you chose"
        )
        raise Invalid(msg)


def _check_overrides(spec: RunSpec, graph: Iterable[Workflow], variables: Variables) -> None:
    by_name = {workflow.name: workflow for workflow in graph}
    for section, values in spec.variables.items():
        if section != GLOBAL and section not in by_name:
            msg = f"variables of {shown(section)} are set, which is no part of this run{nearest(section, by_name)}"
            raise Invalid(msg)
        known = variables.section(section)
        unknown = next((name for name in values if name not in known), None)
        if unknown is not None:
            hint = nearest(unknown, known)
            msg = f"the variable {shown(unknown)} is set, which the section {section!r} doesn't have{hint}"
            raise Invalid(msg)
        _check_values(values, "variable")


def _check_values(values: Mapping[str, str], what: str) -> None:
    for name, value in values.items():
        if problem := value_problem(value):
            msg = f"{what} {shown(name)}: {problem}"
            raise Invalid(msg)
