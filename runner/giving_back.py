"""What the root of a container wrote is made the runner's own again, by another container of the same image."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from runner import handover, recipe
from runner.engine import Engine
from runner.engine_values import Refused, State

OWNER_SECONDS = 600
KILLED_SECONDS = 10

LOG = logging.getLogger(__name__)


def give_back(engine: Engine, name: str, state: State, trees: Sequence[Path]) -> None:
    """Make what the container's root wrote ours, so that we can read and remove it. Raises Unavailable."""
    foreign = [] if os.geteuid() == 0 else handover.foreign(*trees)
    if not foreign:
        return
    labels = {label: state.labels[label] for label in (recipe.KEY, recipe.INSTANCE) if label in state.labels}
    made = recipe.owner(foreign, state.image, name, labels)
    engine.remove(made.name)  # of a runner that died meanwhile
    try:
        engine.create(made)
        engine.start(made.name)
        engine.wait(made.name, OWNER_SECONDS)
        after = engine.state(made.name)
        if after is None or after.exit_code != 0:
            LOG.error("%s: what its container wrote can't be given back: has its image no `chown`?", name)
    except Refused:
        LOG.exception("the checkout can't be given back", extra={"container": name})
    finally:
        engine.remove(made.name)


def give_back_left(engine: Engine, name: str) -> None:
    """The same for a container that nobody followed to its end. Raises Unavailable."""
    state = engine.state(name)
    if state is None or state.status == "created":
        return
    engine.kill(name, "SIGKILL")
    engine.wait(name, KILLED_SECONDS)
    give_back(engine, name, state, [path for path in recipe.ours(state) if path.is_dir()])
