"""The Docker Engine, through its SDK: with `runner.credentials` what imports it, and translates its errors."""

import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
import requests
from docker import errors, utils
from docker.context import ContextAPI
from docker.types import DeviceRequest, LogConfig, Mount

from dstack.model.errors import Unavailable
from runner.credentials import login
from runner.engine_values import Container, Image, Refused, State
from runner.streams import Chunks, Stream

USUAL = "unix:///var/run/docker.sock"
SECONDS = 60
# For what the runner must not wait long for: it has other jobs to look after.
QUICK = 15
PIDS = 16384
# Of the log drivers this one alone keeps bytes that are not UTF-8. The sizes: never throw any of it away.
LOG = {"max-size": "1000g", "max-file": "1", "compress": "false"}


class Engine:
    """A Docker Engine on this machine; `base_url` None means the one that the `docker` command would use."""

    def __init__(self, base_url: str | None = None) -> None:
        """Connect. Raises Unavailable."""
        settings = {"base_url": base_url} if base_url else usual()
        try:
            self._url = str(settings["base_url"])
            answers(self._url)
            self._api = docker.APIClient(version="auto", timeout=SECONDS, num_pools=64, **settings)
            self._quick = docker.APIClient(version=self._api.api_version, timeout=QUICK, **settings)
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise away(error) from error

    def image(self, name: str) -> Image | None:
        """The image of this name, if it is here."""
        inspect: Callable[[str], dict[str, Any]] = self._api.inspect_image
        try:
            with self._reached():
                found = inspect(name)
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        digests = found.get("RepoDigests") or [found["Id"]]
        return Image(found["Id"], digests[0], (found.get("Config") or {}).get("User") or "")

    def pull(self, name: str, take: Callable[[dict[str, Any]], None], unwanted: threading.Event) -> None:
        """Pull the image with the login of the user we are; `take` gets the engine's lines.

        Ends early where it is `unwanted`. Raises Refused with the registry's words.
        """
        repository, tag = utils.parse_repository_tag(name)
        header, trouble = login(repository)
        try:
            with self._pulling(repository, tag or "latest", header) as lines:
                for line in lines:
                    if unwanted.is_set():
                        return
                    take(line)
        except Refused as refused:
            if trouble:
                raise Refused(refused.status, f"{refused.words}; {trouble}") from refused
            raise

    @contextmanager
    def _pulling(self, repository: str, tag: str, header: bytes | None) -> Iterator[Iterator[dict[str, Any]]]:
        """The lines of a pull, which ends when they are let go. It has no time limit: who waits for it has."""
        url = f"{self._api.base_url}/v{self._api.api_version}/images/create"
        wanted = {"fromImage": repository, "tag": tag}
        headers = {"X-Registry-Auth": header} if header else {}
        with self._reached():
            response = self._api.post(url, params=wanted, headers=headers, stream=True, timeout=(SECONDS, None))
        with response, translated():
            if not response.ok:
                raise Refused(response.status_code, words_of(response))
            yield pull_lines(response.iter_lines())

    def empty_image(self) -> str:
        """A new image with nothing in it, and no name; its id."""
        with self._reached():
            said = self._api.import_image_from_data(bytes(10240))
        return str(json.loads(said.splitlines()[-1])["status"])

    def remove_image(self, image: str) -> None:
        """Remove it; no error where there is none or it is in use."""
        with ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), self._reached():
            self._api.remove_image(image)

    def create(self, container: Container) -> str:
        """Create it; its id. Raises Refused."""
        host = self._api.create_host_config(
            mounts=[Mount(path, str(here), type="bind", read_only=only) for here, path, only in container.binds],
            init=True,
            log_config=LogConfig(type="local", config=LOG),
            nano_cpus=None if container.cpu is None else int(container.cpu * 1e9),
            mem_limit=container.memory,
            memswap_limit=container.memory,
            shm_size=container.shm_size,
            pids_limit=PIDS,
            security_opt=["no-new-privileges"],
            device_requests=[DeviceRequest(device_ids=list(map(str, container.gpus)), capabilities=[["gpu"]])]
            if container.gpus
            else None,
        )
        with self._reached():
            made = self._api.create_container(
                container.image,
                command=[],
                entrypoint=list(container.argv),
                name=container.name,
                environment=dict(container.environment),
                working_dir=container.folder,
                labels=dict(container.labels),
                host_config=host,
                user=container.user,
                use_config_proxy=False,
            )
        return str(made["Id"])

    def start(self, name: str) -> None:
        """Start it. Raises Refused."""
        with self._reached():
            self._api.start(name)

    def attach(self, name: str) -> Stream:
        """What it prints from now on, as it comes."""
        return self._stream("POST", name, "attach", {"stdout": 1, "stderr": 1, "stream": 1})

    def logs(self, name: str, *, follow: bool) -> Stream:
        """All it has printed; with `follow` also what it prints until its end (a last unfinished line may miss)."""
        return self._stream("GET", name, "logs", {"stdout": 1, "stderr": 1, "follow": int(follow)})

    def _stream(self, method: str, name: str, what: str, wanted: Mapping[str, int]) -> Stream:
        # The SDK's own readers hide the streams' order or the connection: it is a requests.Session, and used as one.
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{name}/{what}"
        with self._reached():
            response = self._api.request(method, url, params=wanted, stream=True, timeout=None)
            response.raise_for_status()
        return Stream(response.raw.read, response.raw.fileno(), response.close)

    def wait(self, name: str, seconds: int) -> bool:
        """Wait for its end. False where it still runs after that time."""
        try:
            with self._reached():
                self._api.wait(name, timeout=seconds)
        except Unavailable:
            return False
        return True

    def state(self, name: str) -> State | None:
        """What the engine knows of it; None where there is none."""
        try:
            with self._reached():
                found = self._quick.inspect_container(name)
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        state = found["State"]
        return State(
            id=found["Id"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            oom=state["OOMKilled"],
            pid=state["Pid"],
            image=found["Image"],
            labels=found["Config"].get("Labels") or {},
            binds=tuple(Path(one["Source"]) for one in found["Mounts"] if one["Type"] == "bind" and one["RW"]),
        )

    def kill(self, name: str, number: str) -> None:
        """Signal its first process; no error where it doesn't run."""
        with ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR), self._reached():
            self._quick.kill(name, number)

    def execute(self, name: str, argv: list[str]) -> int:
        """Run a command in it as root; its exit code. Raises Refused."""
        with self._reached():
            made = self._quick.exec_create(name, argv, user="0")
            self._quick.exec_start(made["Id"])
            return int(self._quick.exec_inspect(made["Id"]).get("ExitCode") or 0)

    def remove(self, name: str) -> None:
        """Kill and remove it with its anonymous volumes; no error where there is none."""
        with ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), self._reached():
            self._api.remove_container(name, force=True, v=True)

    def labelled(self, label: str) -> list[Mapping[str, str]]:
        """The labels of all containers that carry this one (`NAME=VALUE`)."""
        with self._reached():
            found = self._quick.containers(all=True, filters={"label": [label]})
        return [one.get("Labels") or {} for one in found]

    @contextmanager
    def archive(self, name: str, path: str) -> Iterator[tarfile.TarFile | None]:
        """What stands at `path` in it, as a tar archive to be read once; None where nothing does."""
        try:
            with self._reached():
                chunks, _ = self._api.get_archive(name, path)
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                yield None
                return
            raise
        with self._reached(), tarfile.open(fileobj=io.BufferedReader(Chunks(chunks)), mode="r|") as archive:
            yield archive

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors translated. The SDK isn't asked where nobody answers: it would leave a socket open each time."""
        try:
            answers(self._url)
        except OSError as error:
            raise away(error) from error
        with translated():
            yield

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        self._quick.close()


def pull_lines(raw: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of a pull. Raises Refused where one is an error."""
    for text in raw:
        line = json.loads(text) if text.strip() else {}
        if "error" in line:
            raise Refused(HTTPStatus.NOT_FOUND, str(line["error"]))
        yield line


def words_of(response: requests.Response) -> str:
    """What an engine says about a request it refuses (API, "Errors")."""
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text or response.reason


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


@contextmanager
def ignoring(*statuses: HTTPStatus) -> Iterator[None]:
    """Take these refusals for success."""
    try:
        yield
    except Refused as refused:
        if refused.status not in statuses:
            raise


def away(error: Exception) -> Unavailable:
    """The engine doesn't answer."""
    where = os.environ.get("DOCKER_HOST", "its usual socket")
    return Unavailable(
        f"Docker can't be reached at {where}: is it installed and running, and may you use it? ({error})"
    )
