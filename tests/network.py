"""Keeps the tests on this machine: whoever tries to reach another address fails with a name that says why."""

import ipaddress
import socket
import sys

# For children (git, curl): a proxy where nobody listens, so that what would leave the machine fails at once.
_NOBODY = "http://127.0.0.1:9"
CLOSED = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOBODY),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
}
_EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo")


class NetworkUsedInTestError(BaseException):
    """A test tried to reach another machine. Not an Exception: no broad `except` may hide it."""


def close() -> None:
    """From now on, and for the life of this process, no connection or look-up of a name leaves the machine."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _EVENTS:
        return
    host = _host(event, arguments)
    if host is not None and not _is_local(host):
        message = f"a test tried to reach {host}; tests use this machine alone"
        raise NetworkUsedInTestError(message)


def _host(event: str, arguments: tuple[object, ...]) -> str | None:
    """The host of a call; None for what has none (unix sockets, a look-up of our own addresses)."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
        return host.decode() if isinstance(host, bytes) else None if host is None else str(host)
    sock, address = arguments
    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        return str(address[0]) if isinstance(address, tuple) else None
    return None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "localhost", socket.gethostname())
