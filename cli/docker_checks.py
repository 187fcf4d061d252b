"""What `doctor` looks at about Docker: that an engine answers, is new enough, keeps its limits, and has room."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.checks import Check, Result
from cli.docker_ping import asked, socket_path
from dstack.model.errors import DstackError
from runner import engine_trouble

OLDEST = (1, 40)
LOW_SHARE, LOW_BYTES = 0.05, 5 * 10**9
GIGA = 10**9
NAME = "docker"


def docker_checks() -> Iterator[Check]:
    """All of them, as far as an engine answers; workflows without an image need none."""
    try:
        version = asked("/version")
    except (OSError, ValueError) as error:
        text = f"{trouble(error)}. Workflows with an `image` run on machines where a Docker engine answers"
        yield Check(name=NAME, result=Result.ODD, text=text)
        return
    yield version_check(version)
    yield limits_check()
    try:
        yield from room_check(str(asked("/info").get("DockerRootDir") or ""))
    except (OSError, ValueError) as error:
        yield Check(name=NAME, result=Result.ODD, text=trouble(error))
    yield from login_checks(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json")


def trouble(error: Exception) -> str:
    """Why no engine answers, and what to do."""
    return engine_trouble.why(socket_path(), error)


def version_check(version: dict[str, Any]) -> Check:
    """New enough."""
    name, api = str(version.get("Version")), str(version.get("ApiVersion"))
    parts = tuple(int(part) for part in api.split(".") if part.isdecimal())
    if parts >= OLDEST:
        return Check(name=NAME, result=Result.GOOD, text=f"Docker {name} answers")
    oldest = ".".join(map(str, OLDEST))
    text = f"Docker {name} is too old (its API is {api}, dstack needs {oldest}): update it to 19.03 or newer"
    return Check(name=NAME, result=Result.ODD, text=text)


def limits_check() -> Check:
    """Limits take effect."""
    from runner import limit_probe, limits  # noqa: PLC0415 (its library is heavy)
    from runner.engine import Engine  # noqa: PLC0415 (likewise)

    try:
        engine = Engine()
        try:
            names = limit_probe.without_effect(engine, f"doctor-{secrets.token_hex(4)}")
        finally:
            engine.close()
    except DstackError as error:
        return Check(name=NAME, result=Result.ODD, text=f"it could not be tried whether limits are enforced: {error}")
    if names:
        return Check(name=NAME, result=Result.ODD, text=limits.warning(names))
    return Check(name=NAME, result=Result.GOOD, text="limits on cpu, memory, pids and shm-size take effect")


def room_check(folder: str) -> Iterator[Check]:
    """There is room for images, where the engine's folder is on this machine."""
    try:
        usage = shutil.disk_usage(folder)
    except (OSError, ValueError):
        return
    text = f"{usage.free // GIGA} GB are free where Docker keeps images ({folder})"
    low = usage.free < min(LOW_BYTES, usage.total * LOW_SHARE)
    more = ": free some space (`docker system df` shows what takes it)" if low else ""
    yield Check(name=NAME, result=Result.ODD if low else Result.GOOD, text=text + more)


def login_checks(config: Path) -> Iterator[Check]:
    """Every credential helper that the Docker login names is installed."""
    try:
        found = json.loads(config.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield Check(name=NAME, result=Result.ODD, text=f"the Docker login {config} can't be read: {error}")
        return
    found = found if isinstance(found, dict) else {}
    helpers = found.get("credHelpers")
    names = {found.get("credsStore"), *(helpers.values() if isinstance(helpers, dict) else ())}
    for name in sorted(name for name in names if isinstance(name, str) and name):
        if shutil.which(f"docker-credential-{name}") is None:
            text = f"{config} names the credential helper docker-credential-{name}, which is not in PATH: install it"
            yield Check(name=NAME, result=Result.ODD, text=text)
