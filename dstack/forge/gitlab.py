"""GitLab (docs.gitlab.com/api): statuses of commits, notes on merge requests, project webhooks."""

from collections.abc import Mapping

import msgspec

from dstack.forge.answers import Absent, Denied
from dstack.forge.client import Client
from dstack.forge.forge import Comment, Hook, Posted
from dstack.forge.place import Place
from dstack.model.errors import Failed
from dstack.model.reports import CommitStatus
from dstack.model.verdicts import State

_STATES = {
    State.PENDING: "pending",
    State.RUNNING: "running",
    State.SUCCESS: "success",
    State.FAILURE: "failed",
    State.ERROR: "failed",
    State.CANCELLED: "canceled",
}
# Developer: the least role that may set a status (docs.gitlab.com/user/permissions).
DEVELOPER = 30


class _User(msgspec.Struct):
    username: str
    bot: bool = False


class _Note(msgspec.Struct):
    id: int
    author: _User | None = None
    body: str | None = None
    system: bool = False


class _Status(msgspec.Struct):
    id: int = 0
    name: str = ""
    status: str = ""
    description: str | None = None
    target_url: str | None = None


class _Hook(msgspec.Struct):
    id: int
    url: str = ""


class _Access(msgspec.Struct):
    access_level: int = 0


class _Rights(msgspec.Struct):
    project_access: _Access | None = None
    group_access: _Access | None = None


class _Project(msgspec.Struct):
    permissions: _Rights | None = None


class _Merge(msgspec.Struct):
    iid: int
    target_branch: str


class _Anything(msgspec.Struct):
    """An answer that nobody needs."""


def token_headers(token: str) -> dict[str, str]:
    """Personal, project and OAuth tokens are all taken so."""
    return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


class GitLab:
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
        """See Forge. An administrator has every right without a role."""
        rights = self._client.get(self._place.path, _Project).permissions
        found = (rights.project_access, rights.group_access) if rights else ()
        levels = [one.access_level for one in found if one]
        if levels and max(levels) < DEVELOPER:
            msg = f"the token may read {self._place.name}, but not write to it: statuses need the Developer role"
            raise Denied(msg)
        return f"{self._place.name} can be read with the token{', and written to' if levels else ''}"

    def me(self) -> str | None:
        """See Forge."""
        try:
            return self._client.get("/user", _User).username
        except (Denied, Absent):
            return None

    def statuses(self, commit: str) -> Mapping[str, Posted]:
        """See Forge. The one made last counts."""
        found: dict[str, tuple[int, Posted]] = {}
        for page in self._client.pages(f"{self._place.path}/repository/commits/{commit}/statuses", list[_Status]):
            for one in page:
                posted = Posted(state=one.status, description=one.description or "", link=one.target_url or "")
                if one.name not in found or found[one.name][0] < one.id:
                    found[one.name] = (one.id, posted)
        return {name: posted for name, (_, posted) in found.items()}

    def as_posted(self, status: CommitStatus) -> Posted:
        """See Forge."""
        return Posted(state=_STATES[status.state], description=status.description, link=status.link)

    def post(self, status: CommitStatus) -> None:
        """See Forge. A step that GitLab's own states don't know (running → pending) is left out."""
        body = {
            "state": _STATES[status.state],
            "name": status.context,
            "description": status.description,
            **({"target_url": status.link} if status.link else {}),
            **({"ref": status.ref} if status.ref else {}),
        }
        try:
            self._client.send("POST", f"{self._place.path}/statuses/{status.commit}", body, _Anything)
        except Failed as error:
            if "transition status" not in str(error):
                raise

    def comments(self, pull: int) -> tuple[Comment, ...]:
        """See Forge."""
        pages = self._client.pages(f"{self._notes(pull)}?sort=asc&order_by=created_at", list[_Note])
        return tuple(_comment(one) for page in pages for one in page if not one.system)

    def add_comment(self, pull: int, body: str) -> Comment:
        """See Forge."""
        return _comment(self._client.send("POST", self._notes(pull), {"body": body}, _Note))

    def change_comment(self, pull: int, comment: int, body: str) -> None:
        """See Forge."""
        self._client.send("PUT", f"{self._notes(pull)}/{comment}", {"body": body}, _Anything)

    def remove_comment(self, pull: int, comment: int) -> None:
        """See Forge."""
        try:
            self._client.delete(f"{self._notes(pull)}/{comment}")
        except Absent:
            return

    def bases(self) -> Mapping[int, str]:
        """See Forge."""
        pages = self._client.pages(f"{self._place.path}/merge_requests?state=opened", list[_Merge])
        return {one.iid: one.target_branch for page in pages for one in page}

    def hooks(self) -> Mapping[int, str]:
        """See Forge."""
        return {
            one.id: one.url for page in self._client.pages(f"{self._place.path}/hooks", list[_Hook]) for one in page
        }

    def add_hook(self, hook: Hook) -> None:
        """See Forge."""
        self._client.send("POST", f"{self._place.path}/hooks", _hook(hook), _Hook)

    def change_hook(self, number: int, hook: Hook) -> None:
        """See Forge."""
        self._client.send("PUT", f"{self._place.path}/hooks/{number}", _hook(hook), _Hook)

    def _notes(self, pull: int) -> str:
        return f"{self._place.path}/merge_requests/{pull}/notes"


def _hook(hook: Hook) -> dict[str, object]:
    return {
        "url": hook.url,
        "token": hook.secret,
        "push_events": True,
        "tag_push_events": True,
        "merge_requests_events": True,
        "enable_ssl_verification": True,
    }


def _comment(one: _Note) -> Comment:
    user = one.author or _User(username="")
    return Comment(id=one.id, author=user.username, bot=user.bot, body=one.body or "")
