"""The address a receiver listens at: read from text, and bound once, so that it outlives the process that serves it."""

import socket
from dataclasses import dataclass

from dstack.model.errors import Failed, Invalid
from dstack.model.problems import shown

THIS_MACHINE = "127.0.0.1"
PORTS = range(65536)
BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen. Port 0: the system chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[::1]:PORT`; `PORT` alone is one of this machine alone. Raises Invalid."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        port = ""  # an IPv6 address without its brackets: where it ends can't be told
    if not (port.isascii() and port.isdecimal() and len(port) <= len("65535") and int(port) in PORTS):
        msg = f"{shown(text)} is no address to listen at: write HOST:PORT, [::1]:PORT, or a PORT of this machine alone"
        raise Invalid(msg)
    if colon and not host:
        msg = f"{shown(text)} names no host: write 0.0.0.0:{port} for all addresses of this machine, {port} for itself"
        raise Invalid(msg)
    return Address(host=host or THIS_MACHINE, port=int(port))


def listen(address: Address) -> tuple[socket.socket, Address]:
    """A socket that listens, and where. Raises Failed."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        msg = f"{address} can't be listened at: {error.strerror or error}; name another with --http"
        raise Failed(msg) from error
    return listening, Address(host=address.host, port=listening.getsockname()[1])
