"""What is asked of a Docker Engine. The SDK has its home here, in `runner.connection` and `runner.credentials`."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from docker import utils
from docker.types import DeviceRequest, LogConfig, Mount

from dstack.model.errors import Unavailable
from runner.connection import SECONDS, Connection, translated
from runner.credentials import login
from runner.engine_values import Container, Image, Refused, State
from runner.streams import Chunks, Stream

PIDS = 16384
CHUNK = 1024 * 1024
# Of the log drivers this one alone keeps bytes that are not UTF-8. The sizes: never throw any of it away.
LOG = {"max-size": "1000g", "max-file": "1", "compress": "false"}


class Engine:
    """A Docker Engine on this machine; `base_url` None means the one that the `docker` command would use."""

    def __init__(self, base_url: str | None = None) -> None:
        """Nothing is asked yet. Raises Failed where the settings make no sense."""
        self._link = Connection(base_url)
        self.url = self._link.engine

    def ping(self) -> None:
        """Ask for a sign of life. Raises Unavailable, Refused."""
        with self._link.reached():
            self._link.quick.ping()

    def data_root(self) -> str:
        """Where it keeps images, on its own machine; empty where it doesn't say. Raises Unavailable, Refused."""
        with self._link.reached():
            return str(self._link.quick.info().get("DockerRootDir") or "")

    def image(self, name: str, *, asked: str | None = None) -> Image | None:
        """The image of this name or id, if it is here. `asked`: the name that its digest should go with."""
        inspect: Callable[[str], dict[str, Any]] = self._link.api.inspect_image
        try:
            with self._link.reached():
                found = inspect(name)
        except Refused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        digest = _own(asked or name, found.get("RepoDigests") or [found["Id"]])
        return Image(found["Id"], digest, (found.get("Config") or {}).get("User") or "")

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
        url = self._link.url("images/create")
        wanted = {"fromImage": repository, "tag": tag}
        headers = {"X-Registry-Auth": header} if header else {}
        with self._link.reached():
            response = self._link.api.post(url, params=wanted, headers=headers, stream=True, timeout=(SECONDS, None))
        with response, translated(self._link.engine):
            if not response.ok:
                raise Refused(response.status_code, words_of(response))
            yield pull_lines(response.iter_lines())

    def empty_image(self) -> str:
        """A new image with nothing in it, and no name; its id."""
        with self._link.reached():
            said = self._link.api.import_image_from_data(bytes(10240))
        return str(json.loads(said.splitlines()[-1])["status"])

    def remove_image(self, image: str) -> None:
        """Remove it; no error where there is none or it is in use."""
        with ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), self._link.reached():
            self._link.api.remove_image(image)

    def create(self, container: Container) -> str:
        """Create it; its id. Raises Refused."""
        host = self._link.api.create_host_config(
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
        with self._link.reached():
            made = self._link.api.create_container(
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
        with self._link.reached():
            self._link.api.start(name)

    def attach(self, name: str) -> Stream:
        """What it prints from now on, as it comes."""
        return self._stream("POST", name, "attach", {"stdout": 1, "stderr": 1, "stream": 1})

    def logs(self, name: str, *, follow: bool) -> Stream:
        """All it has printed; with `follow` also what it prints until its end (a last unfinished line may miss)."""
        return self._stream("GET", name, "logs", {"stdout": 1, "stderr": 1, "follow": int(follow)})

    def _stream(self, method: str, name: str, what: str, wanted: Mapping[str, int]) -> Stream:
        # The SDK's own readers hide the streams' order or the connection: it is a requests.Session, and used as one.
        url = self._link.url(f"containers/{name}/{what}")
        with self._link.reached():
            response = self._link.api.request(method, url, params=wanted, stream=True, timeout=None)
            response.raise_for_status()
        return Stream(response.raw.read, response.raw.fileno(), response.close)

    def wait(self, name: str, seconds: int) -> bool:
        """Wait for its end. False where it still runs after that time."""
        try:
            with self._link.reached():
                self._link.api.wait(name, timeout=seconds)
        except Unavailable:
            return False
        return True

    def state(self, name: str) -> State | None:
        """What the engine knows of it; None where there is none."""
        try:
            with self._link.reached():
                found = self._link.quick.inspect_container(name)
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
        with (
            ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR),
            self._link.reached(),
        ):
            self._link.quick.kill(name, number)

    def execute(self, name: str, argv: list[str]) -> int:
        """Run a command in it as root; its exit code. Raises Refused."""
        with self._link.reached():
            made = self._link.quick.exec_create(name, argv, user="0")
            self._link.quick.exec_start(made["Id"])
            return int(self._link.quick.exec_inspect(made["Id"]).get("ExitCode") or 0)

    def remove(self, name: str) -> None:
        """Kill and remove it with its anonymous volumes; no error where there is none."""
        with ignoring(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), self._link.reached():
            self._link.api.remove_container(name, force=True, v=True)

    def labelled(self, label: str, *, running: bool = False) -> list[Mapping[str, str]]:
        """The labels of all containers that carry this one (`NAME=VALUE`), or of those that run."""
        with self._link.reached():
            found = self._link.quick.containers(all=not running, filters={"label": [label]})
        return [one.get("Labels") or {} for one in found]

    @contextmanager
    def archive(self, name: str, path: str) -> Iterator[tarfile.TarFile | None]:
        """What stands at `path` in it, as a tar archive to be read once; None where nothing does."""
        url = self._link.url(f"containers/{name}/archive")
        with self._link.reached():
            response = self._link.api.get(url, params={"path": path}, stream=True, timeout=SECONDS)
        # Closed at once where no more of it is wanted: until then the engine answers nothing about this container.
        with response, self._link.reached():
            if response.status_code == HTTPStatus.NOT_FOUND:
                yield None
                return
            response.raise_for_status()
            chunks = response.iter_content(CHUNK)
            with tarfile.open(fileobj=io.BufferedReader(Chunks(chunks)), mode="r|") as archive:
                yield archive

    def close(self) -> None:
        """Close the connections."""
        self._link.close()


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


@contextmanager
def ignoring(*statuses: HTTPStatus) -> Iterator[None]:
    """Take these refusals for success."""
    try:
        yield
    except Refused as refused:
        if refused.status not in statuses:
            raise


def _own(name: str, digests: Sequence[str]) -> str:
    """Of the names with digests that an image has, that of the repository it was asked for by; else the first."""
    asked = _familiar(utils.parse_repository_tag(name)[0])
    return next((one for one in digests if _familiar(one.partition("@")[0]) == asked), digests[0])


def _familiar(repository: str) -> str:
    """A repository without what docker leaves out when it shows its name."""
    return repository.removeprefix("docker.io/").removeprefix("index.docker.io/").removeprefix("library/")
