"""Why a Docker engine doesn't answer, and what to do about it. Pure, but for whether Docker is installed."""

import re
import shutil

USUAL = "unix:///var/run/docker.sock"
# Of Python's objects: another each time.
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>(: )?")


def why(url: str, error: Exception) -> str:
    """A sentence for people."""
    path = url.removeprefix("unix://")
    if isinstance(error, FileNotFoundError):
        return f"there is no Docker engine at {path}: install Docker, start it, or set DOCKER_HOST"
    if isinstance(error, PermissionError):
        return f"you may not use {path}: `sudo usermod -aG docker $USER`, then log in again"
    if isinstance(error, ConnectionRefusedError):
        return f"the Docker engine at {path} is not running: `sudo systemctl start docker`"
    if isinstance(error, TimeoutError):
        return f"the Docker engine at {path} hangs: look at its log, or restart it"
    return f"the Docker engine at {path} does not answer as it should: {ADDRESS.sub('', str(error))}"


def is_hopeless(url: str, error: BaseException | None, *, path: str | None = None) -> bool:
    """Whether waiting can't mend it: we may not use the socket, or Docker isn't installed (looked for in `path`)."""
    if isinstance(error, FileNotFoundError) and url == USUAL:
        return not any(shutil.which(program, path=path) for program in ("dockerd", "docker"))
    return isinstance(error, PermissionError)
