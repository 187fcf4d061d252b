"""A TCP port that passes everything on to another one, until told to be slow, to be cut, or to break at a byte."""

import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 64 * 1024


@dataclass
class Forwarder:
    """Listens at once, on a free port of `host`. `rate`: bytes a second and connection at most; None: no limit.

    `break_after`: once so many bytes were sent on towards the server, all connections break, once.
    """

    target: tuple[str, int]
    host: str = "127.0.0.1"
    rate: float | None = None
    break_after: int | None = None
    upstream: int = 0
    connections: int = 0
    _cut: bool = False
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listening = socket.create_server((self.host, 0), backlog=128)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """As when the server has gone: what is open breaks, and nothing new is passed on."""
        self._cut = True
        self._break()

    def heal(self) -> None:
        """Pass on again."""
        self._cut = False

    def close(self) -> None:
        """For good."""
        self.cut()
        self._listening.close()

    def _break(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for side in pair:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client:
            if self._cut:
                return
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                return
            server.settimeout(None)
            with server:
                with self._lock:
                    self._pairs.append((client, server))
                with suppress(OSError):
                    self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        while not self._cut:
            ready, _, _ = select.select([client, server], [], [], 0.5)
            for side in ready:
                data = side.recv(CHUNK)
                if not data:
                    return
                (server if side is client else client).sendall(data)
                if side is client:
                    self._count(len(data))
                if self.rate:
                    time.sleep(len(data) / self.rate)

    def _count(self, size: int) -> None:
        with self._lock:
            self.upstream += size
            broken = self.break_after is not None and self.upstream >= self.break_after
            if broken:
                self.break_after = None
        if broken:
            self._break()
