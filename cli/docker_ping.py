"""Asks the Docker engine on this machine, without the half second that Docker's SDK takes to import."""

import http.client
import json
import os
import socket
from typing import Any

SOCKET = "/var/run/docker.sock"
SECONDS = 5.0
LIMIT = 1024 * 1024


def docker_answers() -> bool:
    """Whether the engine of DOCKER_HOST, or the one at the usual place, answers `/_ping`."""
    if not socket_path().startswith("/"):
        return True  # an engine elsewhere: the runner that uses it finds out
    try:
        return _got("/_ping")[0] == http.client.OK
    except OSError:
        return False


def asked(path: str) -> dict[str, Any]:
    """The engine's answer. Raises OSError, ValueError."""
    status, body = _got(path)
    found = json.loads(body)
    if status != http.client.OK or not isinstance(found, dict):
        msg = f"it answers {status} to {path}"
        raise ValueError(msg)
    return found


def socket_path() -> str:
    """Where the engine's socket is; what doesn't begin with `/` is elsewhere."""
    return os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or SOCKET


def _got(path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(socket_path())
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(LIMIT)
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
