"""What `.dstack/workflows.yaml` says, as values: workflows by name, and the graph their dependencies make."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from dstack.model.errors import Invalid
from dstack.model.job import Pull, Resources, Retry, Shell, Volume
from dstack.model.problems import nearest, shown
from dstack.model.triggers import Triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class TagNeed:
    """A dependency written `workflow:tag`: the artifacts of a run that was tagged, without a job of this run."""

    workflow: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One workflow. Times are in seconds.

    `environment` maps names to text, or to None where the submitter's own value is taken. `matrix` maps names to the
    texts of their values, in the order of the file; of their combinations those that agree with one of
    `matrix_exclude` are left out, and `matrix_include` adds some, as written. `artifacts` are relative to
    `working_dir`, or absolute; `saves` maps some of them to seconds. `include`: globs of the repository's files that
    it depends on; empty: all. `on`: what starts it by itself.
    """

    name: str
    help: str = ""
    image: str | None = None
    pull: Pull = Pull.MISSING
    shell: Shell = Shell.SH
    commands: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    tag_needs: tuple[TagNeed, ...] = ()
    include: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    saves: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cache_dirs: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    environment: Mapping[str, str | None] = field(default_factory=dict)
    working_dir: str = "."
    timeout: float | None = None
    stop_grace: float = 30.0
    retry: Retry | None = None
    matrix: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    matrix_include: tuple[Mapping[str, str], ...] = ()
    matrix_exclude: tuple[Mapping[str, str], ...] = ()
    max_parallel: int | None = None
    cache: bool = True
    labels: tuple[str, ...] = ()
    on: Triggers = field(default_factory=Triggers)

    @property
    def matrix_names(self) -> tuple[str, ...]:
        """The names that every combination has: of the lists, or, without lists, of what is included."""
        return tuple(self.matrix or (self.matrix_include[0] if self.matrix_include else ()))

    def matrix_values(self, name: str) -> tuple[str, ...]:
        """The values that a name of the matrix can have, in the order of the file."""
        return tuple(dict.fromkeys([*self.matrix.get(name, ()), *(one[name] for one in self.matrix_include)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflows:
    """All workflows of a file, by name, in its order. Dependencies are known and free of cycles."""

    path: str
    by_name: Mapping[str, Workflow]

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(self.by_name)

    def get(self, name: str) -> Workflow:
        """The workflow of this name. Raises Invalid, with the nearest name."""
        found = self.by_name.get(name)
        if found is None:
            msg = f"{self.path} has no workflow {shown(name)}{nearest(name, self.by_name) or self._all()}"
            raise Invalid(msg)
        return found

    def graph(self, name: str) -> tuple[Workflow, ...]:
        """The workflow and all it depends on, each after its dependencies, else in the order of the file."""
        reached = self._reachable(self.get(name).name)
        rank = {known: number for number, known in enumerate(self.by_name)}
        waiting = {known: len(self.by_name[known].depends_on) for known in reached}
        dependents: dict[str, list[str]] = {known: [] for known in reached}
        for known in reached:
            for need in self.by_name[known].depends_on:
                dependents[need].append(known)
        ready = [(rank[known], known) for known, count in waiting.items() if not count]
        heapq.heapify(ready)
        ordered: list[Workflow] = []
        while ready:
            _, known = heapq.heappop(ready)
            ordered.append(self.by_name[known])
            for dependent in dependents[known]:
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    heapq.heappush(ready, (rank[dependent], dependent))
        return tuple(ordered)

    def _reachable(self, name: str) -> set[str]:
        reached: set[str] = set()
        todo = [name]
        while todo:
            known = todo.pop()
            if known not in reached:
                reached.add(known)
                todo.extend(self.by_name[known].depends_on)
        return reached

    def _all(self) -> str:
        if not self.by_name:
            return ", nor any other: write one below `workflows:`"
        some = list(self.by_name)[:10]
        return f": it has {', '.join(some)}{' …' if len(self.by_name) > len(some) else ''}"
