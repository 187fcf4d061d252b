"""GitHub (docs.github.com/rest), and Gitea and Forgejo, whose API is made after it (docs.gitea.com/api)."""

from collections.abc import Mapping

import msgspec

from dstack.forge.answers import Absent, Denied
from dstack.forge.client import Client
from dstack.forge.forge import Comment, Hook, Posted
from dstack.forge.place import Place
from dstack.model.forge import ForgeKind
from dstack.model.reports import CommitStatus
from dstack.model.verdicts import State

EVENTS = ("push", "create", "delete", "pull_request")
# Gitea tells of new commits in a pull request by another event.
GITEA_EVENTS = (*EVENTS, "pull_request_sync")

_STATES = {
    State.PENDING: "pending",
    State.RUNNING: "pending",
    State.SUCCESS: "success",
    State.FAILURE: "failure",
    State.ERROR: "error",
    State.CANCELLED: "error",
}


class _User(msgspec.Struct):
    login: str
    type: str = ""


class _Comment(msgspec.Struct):
    id: int
    user: _User | None = None
    body: str | None = None


class _Status(msgspec.Struct):
    context: str = ""
    state: str = ""
    status: str = ""
    description: str | None = None
    target_url: str | None = None


class _Combined(msgspec.Struct):
    statuses: list[_Status] | None = None


class _Target(msgspec.Struct):
    url: str = ""


class _Hook(msgspec.Struct):
    id: int
    config: _Target = msgspec.field(default_factory=_Target)


class _Rights(msgspec.Struct):
    push: bool = False
    admin: bool = False


class _Repository(msgspec.Struct):
    permissions: _Rights | None = None


class _Base(msgspec.Struct):
    ref: str


class _Pull(msgspec.Struct):
    number: int
    base: _Base


class _Anything(msgspec.Struct):
    """An answer that nobody needs."""


def token_headers(kind: ForgeKind, token: str) -> dict[str, str]:
    """How a token is shown to them."""
    if kind is ForgeKind.GITEA:
        return {"Authorization": f"token {token}", "Accept": "application/json"}
    return {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }


class GitHub:
    """Implements Forge."""

    def __init__(self, place: Place, client: Client) -> None:
        """`client` has the token."""
        self._place = place
        self._client = client

    @property
    def place(self) -> Place:
        """See Forge."""
        return self._place

    def close(self) -> None:
        """See Forge."""
        self._client.http.close()

    def check(self) -> str:
        """See Forge."""
        rights = self._client.get(self._place.path, _Repository).permissions
        if rights is not None and not rights.push:
            msg = f"the token may read {self._place.name}, but not write to it: statuses need that right"
            raise Denied(msg)
        return f"{self._place.name} can be read with the token, and written to" if rights else self._readable()

    def me(self) -> str | None:
        """See Forge. A token of an app is nobody's."""
        try:
            return self._client.get("/user", _User).login
        except (Denied, Absent):
            return None

    def statuses(self, commit: str) -> Mapping[str, Posted]:
        """See Forge."""
        found: dict[str, Posted] = {}
        for page in self._client.pages(f"{self._place.path}/commits/{commit}/status", _Combined):
            for one in page.statuses or ():
                posted = Posted(
                    state=one.state or one.status, description=one.description or "", link=one.target_url or ""
                )
                found.setdefault(one.context, posted)
            if not page.statuses:
                break
        return found

    def as_posted(self, status: CommitStatus) -> Posted:
        """See Forge."""
        return Posted(state=_STATES[status.state], description=status.description, link=status.link)

    def post(self, status: CommitStatus) -> None:
        """See Forge."""
        body = {
            "state": _STATES[status.state],
            "context": status.context,
            "description": status.description,
            **({"target_url": status.link} if status.link else {}),
        }
        self._client.send("POST", f"{self._place.path}/statuses/{status.commit}", body, _Anything)

    def comments(self, pull: int) -> tuple[Comment, ...]:
        """See Forge."""
        pages = self._client.pages(f"{self._place.path}/issues/{pull}/comments", list[_Comment])
        return tuple(_comment(one) for page in pages for one in page)

    def add_comment(self, pull: int, body: str) -> Comment:
        """See Forge."""
        made = self._client.send("POST", f"{self._place.path}/issues/{pull}/comments", {"body": body}, _Comment)
        return _comment(made)

    def change_comment(self, pull: int, comment: int, body: str) -> None:  # noqa: ARG002 (GitLab asks for both)
        """See Forge."""
        path = f"{self._place.path}/issues/comments/{comment}"
        self._client.send("PATCH", path, {"body": body}, _Anything)

    def remove_comment(self, pull: int, comment: int) -> None:  # noqa: ARG002 (likewise)
        """See Forge."""
        try:
            self._client.delete(f"{self._place.path}/issues/comments/{comment}")
        except Absent:
            return

    def bases(self) -> Mapping[int, str]:
        """See Forge."""
        pages = self._client.pages(f"{self._place.path}/pulls?state=open", list[_Pull])
        return {one.number: one.base.ref for page in pages for one in page}

    def hooks(self) -> Mapping[int, str]:
        """See Forge."""
        pages = self._client.pages(f"{self._place.path}/hooks", list[_Hook])
        return {one.id: one.config.url for page in pages for one in page}

    def add_hook(self, hook: Hook) -> None:
        """See Forge."""
        name = {"type": "gitea"} if self._is_gitea else {"name": "web"}
        self._client.send("POST", f"{self._place.path}/hooks", {**name, **self._hook(hook)}, _Hook)

    def change_hook(self, number: int, hook: Hook) -> None:
        """See Forge."""
        self._client.send("PATCH", f"{self._place.path}/hooks/{number}", self._hook(hook), _Hook)

    @property
    def _is_gitea(self) -> bool:
        return self._place.kind is ForgeKind.GITEA

    def _readable(self) -> str:
        return f"{self._place.name} can be read with the token"

    def _hook(self, hook: Hook) -> dict[str, object]:
        config = {"url": hook.url, "content_type": "json", "secret": hook.secret}
        checked = config if self._is_gitea else {**config, "insecure_ssl": "0"}
        events = GITEA_EVENTS if self._is_gitea else EVENTS
        return {"active": True, "events": list(events), "config": checked}


def _comment(one: _Comment) -> Comment:
    user = one.user or _User(login="")
    return Comment(id=one.id, author=user.login, bot=user.type == "Bot", body=one.body or "")
