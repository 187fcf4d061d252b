"""A forge on this machine that keeps state: as much of GitHub's, Gitea's and GitLab's API as dstack uses, with faults.

Paths and fields as documented: docs.github.com/rest, docs.gitlab.com/api, docs.gitea.com/api.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import httpx

from dstack.forge.place import Place
from dstack.model.forge import ForgeKind

TOKEN = "pl4nted-t0ken-of-a-forge"  # noqa: S105 (nobody's)
PROJECT = "acme/models"
GITHUB_STATES = {"pending", "success", "failure", "error"}
GITLAB_STATES = {"pending", "running", "success", "failed", "canceled", "skipped"}
_ENDED = {"success", "failed", "canceled", "skipped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Instead of an answer: a status with headers and a body; nothing until released; or a closed connection."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "no"}'
    hang: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered; `list_` goes out in pages."""

    status: int = 200
    body: Any = None
    list_: list[Any] | None = None


@dataclass
class FakeForge:
    """`faults` are answered first, one a request, to requests that `failing` matches.
    `users` by token; `open`: pull requests, with where they go.
    """

    kind: ForgeKind = ForgeKind.GITHUB
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: "dstack-bot"})
    nobodies: set[str] = field(default_factory=set)
    commits: set[str] | None = None
    pulls: set[int] | None = None
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    hooks: dict[int, dict[str, Any]] = field(default_factory=dict)
    open: dict[int, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    failing: str = ""
    asked: list[Request] = field(default_factory=list)
    not_modified: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    page: int = 100
    address: str = ""
    _ids: int = 0

    @property
    def api(self) -> str:
        version = {ForgeKind.GITHUB: "", ForgeKind.GITEA: "/api/v1", ForgeKind.GITLAB: "/api/v4"}[self.kind]
        return f"{self.address}{version}"

    @property
    def place(self) -> Place:
        return Place(kind=self.kind, host="127.0.0.1", api=self.api, project=PROJECT)

    def states(self, commit: str) -> list[tuple[str, str]]:
        """Context and state of all statuses of a commit, the first first."""
        name, state = ("name", "status") if self.kind is ForgeKind.GITLAB else ("context", "state")
        return [(one[name], one[state]) for one in self.statuses.get(commit, [])]

    def bodies(self, pull: int) -> list[str]:
        """What stands on a pull request."""
        return [one["body"] for one in self.comments.get(pull, [])]

    def say(self, pull: int, body: str, user: str) -> int:
        """Somebody writes a comment; its id."""
        return int(self._add_comment(pull, body, user)["id"])

    def writes(self) -> list[str]:
        """What was asked but to be read."""
        return [f"{one.method} {one.path}" for one in self.asked if one.method != "GET"]

    def answer(self, request: Request) -> Reply:
        """By the project's path, and what follows."""
        token = request.headers.get("authorization", "").rpartition(" ")[2]
        user = self.users.get(token)
        if user is None:
            return Reply(status=401, body={"message": "Bad credentials"})
        path = request.path.removeprefix(urlsplit(self.api).path)
        if path == "/user":
            name = "username" if self.kind is ForgeKind.GITLAB else "login"
            return (
                Reply(status=403, body={"message": "Resource not accessible by integration"})
                if (token in self.nobodies)
                else Reply(body={name: user, "id": 1, "type": "User"})
            )
        project = self.place.path
        if not path.startswith(project):
            return Reply(status=404, body={"message": "Not Found"})
        below = path.removeprefix(project)
        return (
            self._gitlab(request, below, user) if self.kind is ForgeKind.GITLAB else self._github(request, below, user)
        )

    def _github(self, request: Request, below: str, user: str) -> Reply:  # noqa: PLR0911 (one a path)
        method, body = request.method, request.body
        if below == "":
            return Reply(body={"full_name": PROJECT, "permissions": {"admin": True, "push": True, "pull": True}})
        if match := re.fullmatch(r"/commits/([0-9a-f]{40})/status", below):
            latest = {one["context"]: one for one in self.statuses.get(match[1], [])}
            return Reply(body={"state": "pending", "statuses": list(latest.values())})
        if (match := re.fullmatch(r"/statuses/([0-9a-f]{40})", below)) and method == "POST":
            if self.commits is not None and match[1] not in self.commits:
                return Reply(status=422, body={"message": f"No commit found for SHA: {match[1]}"})
            assert body["state"] in GITHUB_STATES
            assert len(body["description"]) <= 140
            self.statuses.setdefault(match[1], []).append(dict(body))
            return Reply(status=201, body=body)
        if match := re.fullmatch(r"/issues/([0-9]+)/comments", below):
            return self._thread(request, int(match[1]), user)
        if match := re.fullmatch(r"/issues/comments/([0-9]+)", below):
            return self._one_comment(request, int(match[1]), user, "PATCH")
        if below == "/pulls" and request.query["state"] == "open":
            return Reply(list_=[{"number": pull, "base": {"ref": base}} for pull, base in self.open.items()])
        return self._hook(request, below, "PATCH")

    def _gitlab(self, request: Request, below: str, user: str) -> Reply:  # noqa: PLR0911 (one a path)
        method, body = request.method, request.body
        if below == "":
            return Reply(body={"permissions": {"project_access": {"access_level": 40}, "group_access": None}})
        if match := re.fullmatch(r"/repository/commits/([0-9a-f]{40})/statuses", below):
            return Reply(list_=self.statuses.get(match[1], []))
        if (match := re.fullmatch(r"/statuses/([0-9a-f]{40})", below)) and method == "POST":
            return self._gitlab_status(match[1], body)
        if match := re.fullmatch(r"/merge_requests/([0-9]+)/notes", below):
            return self._thread(request, int(match[1]), user)
        if match := re.fullmatch(r"/merge_requests/[0-9]+/notes/([0-9]+)", below):
            return self._one_comment(request, int(match[1]), user, "PUT")
        if below == "/merge_requests" and request.query["state"] == "opened":
            return Reply(list_=[{"iid": pull, "target_branch": base} for pull, base in self.open.items()])
        return self._hook(request, below, "PUT")

    def _gitlab_status(self, commit: str, body: dict[str, Any]) -> Reply:
        """An open status of this name is moved on, as its states allow; an ended one stays, and a new one begins."""
        assert body["state"] in GITLAB_STATES
        mine = [one for one in self.statuses.get(commit, []) if one["name"] == body["name"]]
        found = mine[-1]["status"] if mine else ""
        if found == body["state"] or (found == "running" and body["state"] == "pending"):
            return Reply(status=400, body={"message": {"state": [f"Cannot transition status via :x from :{found}"]}})
        self._ids += 1
        made = {"id": self._ids, "name": body["name"], "status": body["state"], **body}
        self.statuses.setdefault(commit, []).append(made)
        return Reply(status=201, body=made)

    def _thread(self, request: Request, pull: int, user: str) -> Reply:
        if self.pulls is not None and pull not in self.pulls:
            return Reply(status=404, body={"message": "Not Found"})
        if request.method == "POST":
            return Reply(status=201, body=self._add_comment(pull, request.body["body"], user))
        return Reply(list_=self.comments.get(pull, []))

    def _add_comment(self, pull: int, body: str, user: str) -> dict[str, Any]:
        assert len(body) <= 65536
        self._ids += 1
        bot = user.endswith("[bot]")
        who = {"login": user, "username": user, "type": "Bot" if bot else "User", "bot": bot}
        made = {"id": self._ids, "body": body, "user": who, "author": who, "system": False}
        self.comments.setdefault(pull, []).append(made)
        return made

    def _one_comment(self, request: Request, number: int, user: str, change: str) -> Reply:
        for thread in self.comments.values():
            for one in thread:
                if one["id"] == number:
                    assert one["user"]["login"] == user, "somebody else's comment"
                    if request.method == "DELETE":
                        thread.remove(one)
                        return Reply(status=204)
                    assert request.method == change
                    one["body"] = request.body["body"]
                    return Reply(body=one)
        return Reply(status=404, body={"message": "Not Found"})

    def _hook(self, request: Request, below: str, change: str) -> Reply:
        if below == "/hooks" and request.method == "POST":
            self._ids += 1
            self.hooks[self._ids] = dict(request.body)
            return Reply(status=201, body=self._shown_hook(self._ids))
        if below == "/hooks":
            return Reply(list_=[self._shown_hook(number) for number in self.hooks])
        match = re.fullmatch(r"/hooks/([0-9]+)", below)
        if match and int(match[1]) in self.hooks and request.method == change:
            self.hooks[int(match[1])].update(request.body)
            return Reply(body=self._shown_hook(int(match[1])))
        return Reply(status=404, body={"message": "Not Found"})

    def _shown_hook(self, number: int) -> dict[str, Any]:
        """A secret is never told."""
        found = {key: value for key, value in self.hooks[number].items() if key != "token"}
        if "config" in found:
            found["config"] = {**found["config"], "secret": "********"}
        return {"id": number, **found}


class _Handler(BaseHTTPRequestHandler):
    """Speaks for the forge of its server."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: "_Server"

    def _serve(self) -> None:
        forge = self.server.forge
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", "0"))
        data = self.rfile.read(length)
        request = Request(
            method=self.command,
            path=parts.path,
            query={key: values[-1] for key, values in parse_qs(parts.query).items()},
            headers={key.lower(): value for key, value in self.headers.items()},
            body=json.loads(data) if data else None,
        )
        with forge.lock:
            forge.asked.append(request)
            fault = None
            if forge.faults and re.search(forge.failing, f"{request.method} {unquote(request.path)}"):
                fault = forge.faults.pop(0)
        if fault and fault.hang:
            forge.released.wait(20)
            self.close_connection = True
            return
        if fault:
            self._send(fault.status, dict(fault.headers), fault.body)
            return
        with forge.lock:
            reply = forge.answer(request)
        self._reply(request, reply)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 (as the library has it)

    def _reply(self, request: Request, reply: Reply) -> None:
        body, headers = reply.body, {"X-RateLimit-Remaining": "4999"}
        if reply.list_ is not None:
            size = min(self.server.forge.page, int(request.query.get("per_page", "30")))
            page = int(request.query.get("page", "1"))
            body = reply.list_[(page - 1) * size : page * size]
            if len(reply.list_) > page * size:
                query = urlencode({**request.query, "per_page": size, "page": page + 1})
                url = f"{self.server.forge.address}{request.path}?{query}"
                headers["Link"] = f'<{url}>; rel="next"'
        data = b"" if reply.status == 204 else json.dumps(body).encode()
        mark = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if request.method == "GET" and reply.status == 200:
            headers["ETag"] = mark
            if request.headers.get("if-none-match") == mark:
                self.server.forge.not_modified += 1
                self._send(304, headers, b"")
                return
        self._send(reply.status, headers, data)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as the library has it)
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, forge: FakeForge) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forge = forge


def plain_http(timeout: float) -> httpx.Client:
    """A client that needs no TLS: to set that up takes longer than a test."""
    return httpx.Client(timeout=timeout, trust_env=False, verify=False)  # noqa: S501


@contextmanager
def serving(kind: ForgeKind = ForgeKind.GITHUB) -> Iterator[FakeForge]:
    """A forge that listens while the block lasts."""
    forge = FakeForge(kind=kind)
    server = _Server(forge)
    forge.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield forge
    finally:
        forge.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
