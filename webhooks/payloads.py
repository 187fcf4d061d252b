"""The payloads of the forges' deliveries, as far as they say what changed. Pure; read by schema, and never believed."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from webhooks.messages import What
from webhooks.news import Forge, News, plain

# dstack's own branches and tags: a change of these is never a change of the code.
STATE_PREFIXES = ("refs/heads/dstack/", "refs/tags/dstack/")
EVENT_LIMIT = 60
REF_LIMIT = 200
REFS = 16

_PUSHES = frozenset({"push", "create", "delete"})
_PULL_ACTIONS = frozenset({"opened", "reopened", "synchronize", "synchronized", "edited", "closed", "ready_for_review"})
_MERGE_ACTIONS = frozenset({"open", "reopen", "update", "close", "merge"})
_BITBUCKET_PULLS = frozenset(
    {
        *("pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled", "pullrequest:rejected"),
        *("pr:opened", "pr:from_ref_updated", "pr:modified", "pr:merged", "pr:declined", "pr:deleted"),
    }
)


class _Hub(msgspec.Struct):
    ref: str | None = None
    ref_type: str | None = None
    action: str | None = None
    number: int | None = None


def _hub(event: str, body: bytes) -> News:
    """GitHub, Gitea, Forgejo."""
    if event in _PUSHES:
        said = _HUB.decode(body)
        return _pushed(event, [_full(said.ref, said.ref_type)])
    if event in {"pull_request", "pull_request_sync"}:
        said = _HUB.decode(body)
        return _pulled(event, said.number, changed=said.action is None or said.action in _PULL_ACTIONS)
    return News(event=event)


class _Attributes(msgspec.Struct):
    action: str | None = None
    iid: int | None = None


class _Lab(msgspec.Struct):
    object_kind: str | None = None
    event_name: str | None = None
    ref: str | None = None
    refs: list[str] | None = None
    object_attributes: _Attributes | None = None


_LAB_HEADERS = {"Push Hook": "push", "Tag Push Hook": "tag_push", "Merge Request Hook": "merge_request"}


def _lab(header: str, body: bytes) -> News:
    """GitLab: project, group and system hooks; the body says what it is."""
    if header not in _LAB_HEADERS and header not in {"", "System Hook"}:
        return News(event=header)
    said = _LAB.decode(body)
    event = plain((said.object_kind or said.event_name or _LAB_HEADERS.get(header, header))[:EVENT_LIMIT])
    if event in {"push", "tag_push"}:
        return _pushed(event, [said.ref])
    if event == "repository_update":
        return _pushed(event, said.refs or [None])
    if event == "merge_request":
        about = said.object_attributes or _Attributes()
        return _pulled(event, about.iid, changed=about.action is None or about.action in _MERGE_ACTIONS)
    return News(event=event)


class _Named(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    id: str | None = None


class _Moved(msgspec.Struct):
    new: _Named | None = None
    old: _Named | None = None


class _Moves(msgspec.Struct):
    changes: list[_Moved] = []


class _Numbered(msgspec.Struct):
    id: int | None = None


class _Cloud(msgspec.Struct):
    push: _Moves | None = None
    pullrequest: _Numbered | None = None


class _RefChange(msgspec.Struct):
    ref: _Named | None = None


class _DataCenter(msgspec.Struct):
    changes: list[_RefChange] = []
    pullRequest: _Numbered | None = None  # noqa: N815 # as Bitbucket spells it


def _bitbucket(event: str, body: bytes) -> News:
    """Cloud, and Data Center."""
    if event == "repo:push":
        moves = (_CLOUD.decode(body).push or _Moves()).changes
        named = [moved.new or moved.old or _Named() for moved in moves]
        return _pushed(event, [_full(one.name, one.type) for one in named] or [None])
    if event == "repo:refs_changed":
        changes = _DATA_CENTER.decode(body).changes
        return _pushed(event, [change.ref.id if change.ref else None for change in changes] or [None])
    if event in _BITBUCKET_PULLS:
        number = _CLOUD.decode(body).pullrequest or _DATA_CENTER.decode(body).pullRequest or _Numbered()
        return _pulled(event, number.id, changed=True)
    return News(event=event)


_HUB = msgspec.json.Decoder(_Hub)
_LAB = msgspec.json.Decoder(_Lab)
_CLOUD = msgspec.json.Decoder(_Cloud)
_DATA_CENTER = msgspec.json.Decoder(_DataCenter)
READERS: Mapping[Forge, Callable[[str, bytes], News]] = {
    Forge.GITHUB: _hub,
    Forge.GITEA: _hub,
    Forge.GITLAB: _lab,
    Forge.BITBUCKET: _bitbucket,
}


def _pushed(event: str, refs: Sequence[str | None]) -> News:
    """A ref that isn't named may be any."""
    what = frozenset(What.STATE if ref and ref.startswith(STATE_PREFIXES) else What.CODE for ref in refs)
    return News(event=event, what=what, refs=tuple(plain(ref[:REF_LIMIT]) for ref in refs[:REFS] if ref))


def _pulled(event: str, number: int | None, *, changed: bool) -> News:
    refs = () if number is None else (f"pulls/{number}"[:REF_LIMIT],)
    return News(event=event, what=frozenset({What.CODE} if changed else ()), refs=refs)


def _full(name: str | None, kind: str | None) -> str | None:
    """Some events name a branch or tag by its short name and its kind."""
    if not name or not kind or name.startswith("refs/"):
        return name
    return f"refs/tags/{name}" if kind == "tag" else f"refs/heads/{name}"
