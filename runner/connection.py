"""The connection to a Docker Engine: where it is, whether it answers, and its SDK's errors as ours."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker import constants, errors, utils
from docker.context import ContextAPI

from dstack.model.errors import Failed, Unavailable
from runner import engine_trouble
from runner.engine_values import Refused

SECONDS = 60
# For what the runner must not wait long for: it has other jobs to look after.
QUICK = 15


class Connection:
    """Clients of one engine, made when it is first there: `quick` doesn't wait long.

    `base_url` None: the one the `docker` command would use.
    """

    def __init__(self, base_url: str | None = None) -> None:
        """Nothing is asked yet. Raises Failed where the settings make no sense."""
        try:
            self._settings = {"base_url": base_url} if base_url else usual()
            utils.parse_host(self._settings["base_url"])
        except errors.DockerException as error:
            msg = f"DOCKER_HOST, or another of Docker's settings, makes no sense: {error}"
            raise Failed(msg) from error
        self.engine = str(self._settings["base_url"])
        self._clients: tuple[docker.APIClient, docker.APIClient] | None = None
        self._lock = threading.Lock()

    @property
    def api(self) -> docker.APIClient:
        """Raises Unavailable."""
        return self._made()[0]

    @property
    def quick(self) -> docker.APIClient:
        """Raises Unavailable."""
        return self._made()[1]

    def _made(self) -> tuple[docker.APIClient, docker.APIClient]:
        with self._lock:
            if self._clients is None:
                self._clients = self._connect()
            return self._clients

    def _connect(self) -> tuple[docker.APIClient, docker.APIClient]:
        try:
            answers(self.engine)
            version = self._version()
            quick = docker.APIClient(version=version, timeout=QUICK, **self._settings)
            api = docker.APIClient(version=version, timeout=SECONDS, num_pools=64, **self._settings)
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise away(self.engine, error) from error
        return api, quick

    def _version(self) -> str:
        """Of the engine's API. The SDK would find it out itself, but leave a connection open where that fails."""
        client = docker.APIClient(version=constants.DEFAULT_DOCKER_API_VERSION, timeout=QUICK, **self._settings)
        try:
            version: str = client.version(api_version=False)["ApiVersion"]
        finally:
            client.close()
        return version

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Errors translated. The SDK isn't asked where nobody answers: it would leave a socket open each time."""
        try:
            answers(self.engine)
        except OSError as error:
            raise away(self.engine, error) from error
        with translated(self.engine):
            yield

    def url(self, path: str) -> str:
        """Of a request that the SDK has no method for."""
        return f"{self.api.base_url}/v{self.api.api_version}/{path}"

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients or ():
                client.close()


def usual() -> dict[str, Any]:
    """Where the `docker` command finds its engine: DOCKER_HOST, else the context in use, else the usual socket."""
    settings: dict[str, Any] = {**utils.kwargs_from_env()}
    if "base_url" not in settings:
        try:
            host = ContextAPI.get_current_context().Host
        except (errors.DockerException, OSError, ValueError):
            host = None
        settings["base_url"] = host or engine_trouble.USUAL
    return settings


def answers(url: str) -> None:
    """Try the socket before the SDK does, which leaves one open that nobody answers. Raises OSError."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(QUICK)
            probe.connect(url.removeprefix("unix://"))


@contextmanager
def translated(url: str) -> Iterator[None]:
    """The SDK's errors as ours: Refused, Unavailable."""
    try:
        yield
    except errors.APIError as error:
        raise Refused(error.status_code or 0, error.explanation or str(error)) from error
    except requests.HTTPError as error:
        raise Refused(error.response.status_code if error.response is not None else 0, str(error)) from error
    except (errors.DockerException, requests.RequestException) as error:
        raise away(url, error) from error


def away(url: str, error: Exception) -> Unavailable:
    """The engine doesn't answer."""
    cause = TimeoutError() if isinstance(error, requests.Timeout) else error
    return Unavailable(f"Docker can't be reached: {engine_trouble.why(url, cause)}")
