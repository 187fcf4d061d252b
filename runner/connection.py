"""The connection to a Docker Engine: where it is, whether it answers, and its SDK's errors as ours."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker import errors, utils
from docker.context import ContextAPI

from dstack.model.errors import Unavailable
from runner.engine_values import Refused

USUAL = "unix:///var/run/docker.sock"
SECONDS = 60
# For what the runner must not wait long for: it has other jobs to look after.
QUICK = 15


class Connection:
    """Two clients of one engine: `quick` doesn't wait long. `base_url` None: the one the `docker` command would use."""

    def __init__(self, base_url: str | None = None) -> None:
        """Connect. Raises Unavailable."""
        settings = {"base_url": base_url} if base_url else usual()
        try:
            self._url = str(settings["base_url"])
            answers(self._url)
            self.api = docker.APIClient(version="auto", timeout=SECONDS, num_pools=64, **settings)
            self.quick = docker.APIClient(version=self.api.api_version, timeout=QUICK, **settings)
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise away(error) from error

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Errors translated. The SDK isn't asked where nobody answers: it would leave a socket open each time."""
        try:
            answers(self._url)
        except OSError as error:
            raise away(error) from error
        with translated():
            yield

    def url(self, path: str) -> str:
        """Of a request that the SDK has no method for."""
        return f"{self.api.base_url}/v{self.api.api_version}/{path}"

    def close(self) -> None:
        """Close the connections."""
        self.api.close()
        self.quick.close()


def usual() -> dict[str, Any]:
    """Where the `docker` command finds its engine: DOCKER_HOST, else the context in use, else the usual socket."""
    settings: dict[str, Any] = {**utils.kwargs_from_env()}
    if "base_url" not in settings:
        try:
            host = ContextAPI.get_current_context().Host
        except (errors.DockerException, OSError, ValueError):
            host = None
        settings["base_url"] = host or USUAL
    return settings


def answers(url: str) -> None:
    """Try the socket before the SDK does, which leaves one open that nobody answers. Raises OSError."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(QUICK)
            probe.connect(url.removeprefix("unix://"))


@contextmanager
def translated() -> Iterator[None]:
    """The SDK's errors as ours: Refused, Unavailable."""
    try:
        yield
    except errors.APIError as error:
        raise Refused(error.status_code or 0, error.explanation or str(error)) from error
    except requests.HTTPError as error:
        raise Refused(error.response.status_code if error.response is not None else 0, str(error)) from error
    except (errors.DockerException, requests.RequestException) as error:
        raise away(error) from error


def away(error: Exception) -> Unavailable:
    """The engine doesn't answer."""
    where = os.environ.get("DOCKER_HOST", "its usual socket")
    return Unavailable(
        f"Docker can't be reached at {where}: is it installed and running, and may you use it? ({error})"
    )
