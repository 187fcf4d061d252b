"""Whether a Docker engine answers on this machine, asked without the half second that Docker's SDK takes to import."""

import http.client
import os
import socket

SOCKET = "/var/run/docker.sock"
SECONDS = 5.0


def docker_answers() -> bool:
    """Whether the engine of DOCKER_HOST, or the one at the usual place, answers `/_ping`."""
    host = os.environ.get("DOCKER_HOST", "")
    path = host.removeprefix("unix://") if host else SOCKET
    if not path.startswith("/"):
        return True  # an engine elsewhere: the runner that uses it finds out
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(path)
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
