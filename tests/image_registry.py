"""A registry of images (Distribution API v2) on this machine, with logins, faults, and a memory of what was asked."""

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PIECE = 65536


@dataclass(slots=True)
class Registry:
    """What it has, by path. `failing` answers 503 to so many requests for manifests; `pause` lies between pieces."""

    name: str = ""
    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    failing: int = 0
    pause: float = 0.0
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def add(self, repository: str, tag: str, tar: Path, settings: list[str]) -> str:
        """An image of one layer; its name."""
        data = tar.read_bytes()
        layer = gzip.compress(data, 1, mtime=0)
        env = [line.removeprefix("ENV ") for line in settings if line.startswith("ENV ")]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": env, "Labels": {"tag": tag}},
            "rootfs": {"type": "layers", "diff_ids": [digest(data)]},
        }
        packed = json.dumps(config).encode()
        parts = {
            "config": {"mediaType": CONFIG, "size": len(packed), "digest": digest(packed)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
        }
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, **parts}).encode()
        for blob in (packed, layer):
            self.content[f"/v2/{repository}/blobs/{digest(blob)}"] = ("application/octet-stream", blob)
        for reference in (tag, digest(manifest)):
            self.content[f"/v2/{repository}/manifests/{reference}"] = (MANIFEST, manifest)
        return f"{self.name}/{repository}:{tag}"

    def asked_for(self, what: str) -> int:
        """How often a path with this in it was got."""
        return sum(what in line for line in self.asked if line.startswith("GET"))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves a registry."""

    def __init__(self, one: Registry) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.registry = one


class Handler(BaseHTTPRequestHandler):
    """Answers of the registry."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        one = self.server.registry
        one.asked.append(f"{self.command} {self.path}")
        if one.login and self.headers.get("Authorization") != basic(*one.login):
            self._say(HTTPStatus.UNAUTHORIZED, "application/json", error("UNAUTHORIZED", "authentication required"))
        elif self.path == "/v2/":
            self._say(HTTPStatus.OK, "application/json", b"{}")
        elif "/manifests/" in self.path and one.failing:
            one.failing -= 1
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"try later")
        elif self.path in one.content:
            self._say(HTTPStatus.OK, *one.content[self.path])
        else:
            self._say(HTTPStatus.NOT_FOUND, "application/json", error("MANIFEST_UNKNOWN", "manifest unknown"))

    def _say(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if kind == MANIFEST:
            self.send_header("Docker-Content-Digest", digest(body))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _write(self, body: bytes) -> None:
        one = self.server.registry
        try:
            for start in range(0, len(body), PIECE):
                self.wfile.write(body[start : start + PIECE])
                if "/blobs/" in self.path:
                    one.released.wait(one.pause)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not said."""


@contextmanager
def registry() -> Iterator[Registry]:
    """One that is served on loopback, where engines need no TLS."""
    one = Registry()

    server = Server(one)
    one.name = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
