"""What became of the runners, and what that means for an attempt one of them was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dstack.model.events import Assigned
from dstack.model.gpus import Gpu, lacking
from dstack.model.job import Job
from dstack.model.placing import executor_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFates:
    """What became of the runners: `lost` ones, the instance registered for each, (runner, attempt) pairs given up.

    `spared`: attempts that another controller, to whom the runner lives, gave it less than a lease ago. `gone`: ended
    with nothing in hand. `waiting`: (runner, attempt) pairs not begun, by the heartbeat of the registered start,
    with why it begins nothing now, if it doesn't; `paused` the same of (runner, executor). `gpus`: what each has.
    """

    lost: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()
    instances: Mapping[str, str] = field(default_factory=dict)
    given_up: frozenset[tuple[str, str]] = frozenset()
    gone: frozenset[str] = frozenset()
    waiting: Mapping[tuple[str, str], str] = field(default_factory=dict)
    paused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    gpus: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)

    def back(self, key: str, assigned: Assigned, job: Job) -> str:
        """Why its runner, the very one it was given to, has not begun this attempt and never will; else empty."""
        name = assigned.runner
        if self.instances.get(name) != assigned.instance:
            return ""
        if name in self.gone:
            return f"the runner {name} has ended"
        why = self.waiting.get((name, key))
        if why is None:
            return ""
        if missing := lacking(self.gpus.get(name, ()), job.resources.gpu):
            return f"the runner {name} {missing}"
        if why:
            return f"the runner {name} begins nothing now ({why})"
        executor = executor_of(job)
        why = self.paused.get((name, executor), "")
        return f"the runner {name} begins no {executor} jobs now ({why})" if why else ""

    def of(self, key: str, assigned: Assigned) -> str:
        """Why nothing is to be expected of this attempt any more; empty while something is."""
        name = assigned.runner
        if name not in self.instances or (name in self.lost and key not in self.spared):
            return f"the runner {name} is lost"
        if self.instances[name] != assigned.instance:
            return f"the runner {name} was set up anew"
        if (name, key) in self.given_up:
            return f"the runner {name} does not know of it"
        return ""
