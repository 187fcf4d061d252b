"""Git servers on loopback, each of a folder of repositories: `git daemon`, smart HTTP with passwords, and sshd."""

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

PATIENCE = 10.0
USER, PASSWORD = "ada", "pl4nted:se@cret"


class GitServer(Protocol):
    """Serves all repositories of a folder until stopped; a new start serves at the same address."""

    def url(self, name: str) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for_port(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end, f"nobody listens on {port}"
        time.sleep(0.02)


@dataclass
class Daemon:
    """A server that is a process. `command` starts it in the foreground."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_port(self.port)

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@dataclass
class GitDaemon(Daemon):
    """`git://`: no login, everybody may push."""

    def command(self) -> list[str]:
        options = ["--export-all", "--enable=receive-pack", "--reuseaddr", "--listen=127.0.0.1", f"--port={self.port}"]
        return ["git", "daemon", *options, f"--base-path={self.folder}", str(self.folder)]

    def url(self, name: str) -> str:
        return f"git://127.0.0.1:{self.port}/{name}"


@dataclass
class SshServer(Daemon):
    """sshd for the user that runs the tests, with host key and user key of its own. `alias` stands in ~/.ssh/config."""

    home: Path = field(default_factory=Path.home)

    def __post_init__(self) -> None:
        self.keys = self.folder / "ssh"
        self.keys.mkdir()
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.keys / name)]
            subprocess.run(words, check=True)
        (self.keys / "authorized").write_bytes((self.keys / "user.pub").read_bytes())
        self.keys.chmod(0o700)
        key = (self.keys / "host.pub").read_text().split()
        (self.keys / "known").write_text(f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n")
        Path("/run/sshd").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        settings = {
            "HostKey": self.keys / "host",
            "AuthorizedKeysFile": self.keys / "authorized",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "AcceptEnv": "GIT_PROTOCOL",
            # The first bash of a connection reads its start files: those of whoever runs the tests may take long.
            "SetEnv": "SHLVL=1",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        words += ["-o", "ListenAddress=127.0.0.1"]
        return [
            sshd or "sshd",
            "-D",
            "-e",
            "-f",
            "/dev/null",
            "-p",
            str(self.port),
            "-o",
            "ListenAddress=127.0.0.1",
            *words,
        ]

    def client(self, *, known: Path | None = None, key: Path | None = None) -> str:
        """The ssh command of a user who has a key and knows the host."""
        return (
            f"ssh -F /dev/null -o IdentitiesOnly=yes -i {key or self.keys / 'user'} -o SendEnv=GIT_PROTOCOL "
            f"-o UserKnownHostsFile={known or self.keys / 'known'} -o StrictHostKeyChecking=yes"
        )

    def url(self, name: str) -> str:
        return f"ssh://127.0.0.1:{self.port}{self.folder / name}"


@dataclass
class HttpServer:
    """Smart HTTP: a thread runs `git http-backend` for each request. `login` None: everybody may do everything.

    `answers`: what is answered instead, the first one first: a status, and headers. `requests` are those that came,
    and `logins` what they logged in with.
    """

    folder: Path
    login: tuple[str, str] | None = (USER, PASSWORD)
    port: int = field(default_factory=free_port)
    answers: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    extra: dict[str, str] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def url(self, name: str) -> str:
        """With the credentials in it."""
        login = "" if self.login is None else f"{self.login[0]}:pl4nted%3Ase%40cret@"
        return f"http://{login}127.0.0.1:{self.port}/{name}"

    def plain_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def pushes(self) -> int:
        """How many packs were pushed."""
        return sum(1 for method, path in self.requests if method == "POST" and path.endswith("git-receive-pack"))


class _Handler(BaseHTTPRequestHandler):
    owner: HttpServer
    protocol_version = "HTTP/1.1"
    # As real servers have it: else an answer's body waits 40 ms for its head to be acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _serve(self) -> None:
        owner, parts = self.owner, urlsplit(self.path)
        body = self._body()
        owner.requests.append((self.command, self.path.removeprefix("/")))
        owner.logins |= {login} if (login := self.headers.get("Authorization")) else set()
        if owner.answers:
            self._answer(*owner.answers.pop(0))
        elif any(self.headers.get(name) != value for name, value in owner.extra.items()) or not self._may():
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, "who are you?\n")
        else:
            self._run(parts.path, parts.query, body)

    def _may(self) -> bool:
        if self.owner.login is None:
            return True
        wanted = base64.b64encode(":".join(self.owner.login).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _run(self, path: str, query: str, body: bytes) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "GIT_PROJECT_ROOT": str(self.owner.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "REMOTE_USER": USER,
            "REMOTE_ADDR": "127.0.0.1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "-c", "http.receivepack=true", "http-backend"],
            env=environment, input=body, capture_output=True, check=False,
        )  # fmt: skip
        head, _, out = done.stdout.partition(b"\r\n\r\n")
        headers = [line.partition(": ") for line in head.decode().split("\r\n") if line]
        found = {name: value for name, _, value in headers}
        self._answer(int(found.pop("Status", "200 OK").split()[0]), found, out)

    def _answer(self, status: int, headers: dict[str, str], body: str | bytes) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in ({"Content-Type": "text/plain"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(data)


@contextmanager
def running(server: Daemon | HttpServer) -> Iterator[None]:
    """Serve within the block."""
    server.start()
    try:
        yield
    finally:
        server.stop()


def can_serve_ssh() -> bool:
    """Whether there is an sshd that this user may start: only root may change to the user who logs in."""
    return os.geteuid() == 0 and shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None
