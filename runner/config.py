"""A runner's own settings, in its state folder: what `dstack-runner config` writes and `start` reads."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from dstack import personal
from dstack.model import refs
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Failed, Invalid
from dstack.model.labels import label_problem
from dstack.model.names import volume_problem
from dstack.model.pool import Capacity
from dstack.model.run_names import new_name
from runner.machine import detected
from runner.nvidia import chosen, read_setting
from runner.trust import Trust, check_trust

FILE = "runner.json"
LIMIT = 64 * 1024
EXECUTORS = ("docker", "process")


class RunnerConfig(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`remote`: a path or URL. `cpu` in cores and `memory` in bytes: None means what the machine has.

    `gpus`: see `runner.nvidia.chosen`; `keep_free`: bytes, see `runner.disk`. `volumes`: absolute folders by name.
    `interruptible`: the machine can be taken away. `trust`: what is demanded of the runs it executes.
    """

    version: int = 1
    name: str
    remote: str | None = None
    labels: tuple[str, ...] = ()
    executors: tuple[str, ...] = ("docker",)
    cpu: float | None = None
    memory: int | None = None
    gpus: tuple[str, ...] | None = None
    keep_free: int | None = None
    volumes: dict[str, str] = {}
    interruptible: bool = False
    trust: Trust = Trust()

    @property
    def capacity(self) -> Capacity:
        """What is offered to jobs."""
        machine = detected()
        return Capacity(
            cpu=machine.cpu if self.cpu is None else self.cpu,
            memory=machine.memory if self.memory is None else self.memory,
            gpus=machine.gpus if self.gpus is None else chosen(self.gpus, {gpu.index: gpu for gpu in machine.gpus}),
        )


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where a runner keeps its state unless told otherwise."""
    return personal.state_folder(environ) / "runner"


def new_config() -> RunnerConfig:
    """The settings of a new runner, with a name made up for it."""
    return RunnerConfig(name=new_name(secrets.randbits(32), secrets.randbits(32), ()))


def read_config(folder: Path) -> RunnerConfig | None:
    """The settings in a state folder; None where there are none yet. Raises Invalid, Failed."""
    path = folder / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"the runner's settings {path} can't be read: {error.strerror}"
        raise Failed(msg) from error
    return checked(decode(data, RunnerConfig, str(path), limit=LIMIT))


def write_config(folder: Path, config: RunnerConfig) -> None:
    """Write checked settings, for the owner's eyes only. Raises Invalid, Failed."""
    data = encode(checked(config)) + b"\n"
    scratch = folder / f"{FILE}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        scratch.replace(folder / FILE)
    except OSError as error:
        msg = f"the runner's settings can't be written to {folder}: {error.strerror}"
        raise Failed(msg) from error


def checked(config: RunnerConfig) -> RunnerConfig:
    """The settings themselves, if they make sense. Raises Invalid."""
    refs.check_name(config.name, "runner")
    for executor in config.executors:
        if executor not in EXECUTORS:
            msg = f"there is no executor {executor!r}: say {' or '.join(EXECUTORS)}"
            raise Invalid(msg)
    if not config.executors:
        msg = f"a runner without an executor runs nothing: say {' or '.join(EXECUTORS)}"
        raise Invalid(msg)
    for label in config.labels:
        if problem := label_problem(label):
            raise Invalid(problem)
    if config.cpu is not None and not config.cpu > 0:
        msg = f"cpu is {config.cpu:g}; give a number of cores above 0"
        raise Invalid(msg)
    _check_volumes(config.volumes)
    check_trust(config.trust)
    for text in config.gpus or ():
        read_setting(text)
    if config.memory is not None and config.memory <= 0:
        msg = f"memory is {config.memory}; give a size above 0, like 16GB"
        raise Invalid(msg)
    return config


def _check_volumes(volumes: Mapping[str, str]) -> None:
    for volume, where in volumes.items():
        if problem := volume_problem(volume):
            msg = f"{volume!r} can't be the name of a volume: {problem}"
            raise Invalid(msg)
        if not Path(where).is_absolute():
            msg = f"the folder {where!r} of the volume {volume} is no absolute path"
            raise Invalid(msg)
