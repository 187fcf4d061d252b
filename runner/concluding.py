"""How a container ended: what its last state says, and what that alone does not."""

from collections.abc import Sequence

from dstack.model.job import Reason
from runner import limits, recipe
from runner.engine import Engine
from runner.engine_values import State
from runner.executor import Exit
from runner.following import Following
from runner.giving_back import give_back

KILLED, TERMINATED = 137, 143


def concluded(engine: Engine, following: Following, state: State, unlimited: Sequence[str]) -> Exit:
    """The exit of a container in its last state. `unlimited`: limits without effect here. Raises Unavailable."""
    launch = following.launch
    caches = [one.here for one in launch.lent if one.ours and one.here.is_dir()]
    give_back(engine, following.name, state, (launch.tree, launch.folder, *caches))
    found = engine.image(state.image, asked=launch.job.image)
    oom = state.oom and state.exit_code == KILLED
    reason, message = _reason(following, state)
    warning = limits.unheeded(following.launch.job.resources, unlimited)
    return Exit(
        exit_code=state.exit_code,
        signal=9 if state.exit_code == KILLED else None,
        oom=oom,
        reason=reason,
        message=message,
        image=found.digest if found else state.image,
        warnings=(warning,) if warning else (),
    )


def _reason(following: Following, state: State) -> tuple[Reason | None, str]:
    """What the exit code alone doesn't say. OOMKilled alone says only that some process of it was."""
    if state.oom and state.exit_code == KILLED:
        return Reason.OOM, recipe.out_of_memory(following.launch.job.resources)
    if following.was_away and state.exit_code in (KILLED, TERMINATED):
        return Reason.INTERRUPTED, "Docker was stopped or restarted on the runner, and ended the container"
    return recipe.shell_trouble(following.launch, state)
