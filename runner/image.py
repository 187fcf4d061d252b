"""Having a job's image on this machine."""

from collections.abc import Callable

from dstack.model.job import Pull, Reason
from runner.engine import Engine
from runner.engine_values import Image, Refused
from runner.executor import Launch, StartFailed
from runner.pull_refusals import why
from runner.pulling import Pulls


def ready(engine: Engine, pulls: Pulls, launch: Launch, tell: Callable[[str], None]) -> Image:
    """The image, pulled where it is to be. `tell` gets lines for the log. Raises StartFailed, Unavailable."""
    name = launch.job.image or ""
    found = present(engine, name)
    if found is not None and launch.job.pull is not Pull.ALWAYS:
        return found
    try:
        pulls.pull(name, tell, launch.check, launch.progress)
    except StartFailed as error:
        if found is None or error.reason is not Reason.IMAGE_PULL or "can't be reached" not in str(error):
            raise
        tell(f"{error}; the one that is here is used")
        return found
    found = present(engine, name)
    if found is None:
        msg = f"the image {name} was pulled and yet isn't there: pull it by hand on the runner to see why"
        raise StartFailed(Reason.IMAGE_PULL, msg)
    tell(f"pulled the image: {found.digest}")
    return found


def present(engine: Engine, name: str) -> Image | None:
    """The image, if it is here. Raises StartFailed where the name can't be one, Unavailable."""
    try:
        return engine.image(name)
    except Refused as refused:
        raise why(name, refused) from refused
