"""Having a job's image on this machine, and saying in a sentence why it can't be had."""

import getpass

from dstack.model.job import Reason
from runner.engine import Engine
from runner.engine_values import Image, Refused
from runner.executor import StartFailed

REFUSED = ("unauthorized", "denied", "authentication required", "no basic auth", "forbidden")
FULL = "no space left on device"


def ready(engine: Engine, name: str) -> Image:
    """The image, pulled if it is absent. Raises StartFailed, Unavailable."""
    try:
        found = engine.image(name)
        if found is None:
            engine.pull(name)
            found = engine.image(name)
    except Refused as refused:
        raise why(name, refused) from refused
    if found is None:
        msg = f"the image {name} was pulled and yet isn't there: pull it by hand on the runner to see why"
        raise StartFailed(Reason.IMAGE_PULL, msg)
    return found


def why(name: str, refused: Refused) -> StartFailed:
    """The registry's or engine's refusal, explained."""
    words = refused.words.lower()
    if any(text in words for text in REFUSED):
        msg = (
            f"the registry doesn't give the image {name} to this runner: check the name, or log in with `docker login` "
            f"as the runner's user, {user()} ({refused.words})"
        )
        return StartFailed(Reason.IMAGE_AUTH, msg)
    if FULL in words:
        return StartFailed(Reason.DISK_FULL, f"there is no room for the image {name} on the runner: free some space")
    return StartFailed(Reason.IMAGE_PULL, f"the image {name} can't be pulled: check its name ({refused.words})")


def user() -> str:
    """Who we are, for people."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unnamed"
