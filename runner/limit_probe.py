"""Tries an engine's limits in a container of an empty image, with the programs of this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import engine as engines
from runner import limits
from runner.engine import Engine
from runner.engine_values import Container
from runner.multiplexed import pieces

SECONDS = 30
PROGRAMS = ("/bin", "/lib", "/lib32", "/lib64", "/usr", "/nix/store")


def without_effect(engine: Engine, instance: str, **asked: Any) -> tuple[str, ...]:  # noqa: ANN401 (a test's own limits)
    """The limits without effect. Raises Refused, Unavailable where they can't be tried."""
    name = f"dstack-{instance}-probe"
    image = engine.empty_image()
    try:
        engine.remove(name)
        made = container(name, image, {"cpu": limits.CPU, "memory": limits.MEMORY, "shm_size": limits.SHM, **asked})
        return limits.without_effect(_answer(engine, made), engines.PIDS)
    finally:
        engine.remove(name)
        engine.remove_image(image)


def container(name: str, image: str, asked: Mapping[str, Any]) -> Container:
    """What to create."""
    here = [Path(path) for path in PROGRAMS if Path(path).is_dir()]
    return Container(
        name=name,
        image=image,
        argv=("/bin/sh", "-c", limits.SCRIPT),
        environment={"PATH": "/bin:/usr/bin"},
        folder="/",
        labels={"dstack.probe": "limits"},
        binds=tuple((path, str(path), True) for path in here),
        **asked,
    )


def _answer(engine: Engine, made: Container) -> str:
    engine.create(made)
    engine.start(made.name)
    engine.wait(made.name, SECONDS)
    stream = engine.logs(made.name, follow=False)
    try:
        return b"".join(data for _, data in pieces(stream.read)).decode(errors="replace")
    finally:
        stream.close()
