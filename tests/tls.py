"""Servers behind TLS on loopback: an authority of the tests' own, and a port that speaks TLS before a server's own."""

import datetime as dt
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trustme

CHUNK = 64 * 1024
HOST = "127.0.0.1"


@cache
def authority() -> trustme.CA:
    """Nobody trusts it but who is told to."""
    return trustme.CA()


def trusting(path: Path) -> Path:
    """A file with the authority's certificate, as settings name it."""
    authority().cert_pem.write_to_path(str(path))
    return path


def certified(kind: str = "good") -> ssl.SSLContext:
    """A server's side of TLS with a certificate that is `good`, `expired`, or another `host`'s."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    name = "elsewhere.example" if kind == "host" else HOST
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(name, not_after=past if kind == "expired" else None).configure_cert(context)
    return context


@dataclass
class TlsFront:
    """Passes on what comes over TLS to a port of this machine. `hangs_up`: at once, without a word."""

    target: int
    context: ssl.SSLContext
    hangs_up: bool = False
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = socket.create_server((HOST, 0), backlog=128)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Listen no more, and let go of everybody."""
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(plain,), daemon=True).start()

    def _pass_on(self, plain: socket.socket) -> None:
        with plain, suppress(OSError):
            if self.hangs_up:
                return
            with (
                self.context.wrap_socket(plain, server_side=True) as client,
                socket.create_connection((HOST, self.target)) as server,
            ):
                self._open += [client, server]
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
