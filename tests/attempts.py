"""Attempts for the executors' tests: launches, their output, and waiting for their end with a limit."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dstack.model.job import Job, Resources, Shell
from runner.executor import OUTPUT, Executor, Exit, Launch
from runner.frames import STDERR, STDOUT, Frame, read_frame

ROOT = "5ab98f2089ae" + "0" * 28


def launch(
    folder: Path,
    script: str,
    *,
    key: str = "0123456789ab.1",
    environment: Mapping[str, str] | None = None,
    job: Mapping[str, object] | None = None,
    mounts: Mapping[str, Path] | None = None,
) -> Launch:
    """A launch of `script` in `folder/<key>`, with an empty tree."""
    tree = folder / f"tree-{key}"
    tree.mkdir(exist_ok=True)
    return Launch(
        key=key,
        job=make_job(script, job or {}),
        script=script,
        environment=environment or {},
        tree=tree,
        folder=folder / key,
        mounts=mounts or {},
        labels={"run": "fast-rabbit-1", "attempt": key},
    )


def make_job(script: str, fields: Mapping[str, object]) -> Job:
    """A job of these commands; `fields` are the job's own."""
    shell, working_dir, image = fields.get("shell", "sh"), fields.get("working_dir", "."), fields.get("image")
    resources, grace = fields.get("resources", Resources()), fields.get("stop_grace", 30.0)
    assert isinstance(shell, str)
    assert isinstance(working_dir, str)
    assert image is None or isinstance(image, str)
    assert isinstance(resources, Resources)
    assert isinstance(grace, float)
    return Job(
        root=ROOT,
        workflow="train",
        commands=(script,),
        shell=Shell(shell),
        working_dir=working_dir,
        image=image,
        resources=resources,
        stop_grace=grace,
    )


def frames(folder: Path) -> list[Frame]:
    """All whole frames of the attempt's output."""
    with (folder / OUTPUT).open("rb") as file:
        return list(iter(lambda: read_frame(file), None))


def output(folder: Path, *streams: int) -> bytes:
    """The bytes of these streams (stdout and stderr if none is named)."""
    return b"".join(frame.data for frame in frames(folder) if frame.stream in (streams or (STDOUT, STDERR)))


def ended(executor: Executor, key: str, seconds: float = 20) -> Exit:
    """The exit of the attempt, waited for."""
    until(lambda: executor.exited(key) is not None, seconds)
    result = executor.exited(key)
    assert result is not None
    return result


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for the condition; fail after this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def shows(one: Launch, text: bytes) -> Callable[[], bool]:
    """Whether the attempt has printed this text."""
    return lambda: (one.folder / OUTPUT).exists() and text in output(one.folder)
