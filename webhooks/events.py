"""What a forge's delivery says may have changed. Pure; the payload is untrusted, and only ever wakes somebody."""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from webhooks.messages import What
from webhooks.news import Forge, News, plain
from webhooks.payloads import EVENT_LIMIT, READERS, REF_LIMIT
from webhooks.signatures import Headers

FIELDS = 16
FORM = b"application/x-www-form-urlencoded"

_NAMES: tuple[tuple[Forge, tuple[bytes, ...]], ...] = (
    # Gitea and Forgejo send GitHub's headers as well.
    (Forge.GITEA, (b"x-forgejo-event", b"x-gitea-event", b"x-gogs-event")),
    (Forge.GITLAB, (b"x-gitlab-event",)),
    (Forge.GITHUB, (b"x-github-event",)),
    (Forge.BITBUCKET, (b"x-event-key",)),
)
_IDS = (
    b"webhook-id",
    b"idempotency-key",
    b"x-github-delivery",
    b"x-forgejo-delivery",
    b"x-gitea-delivery",
    b"x-gogs-delivery",
    b"x-request-uuid",
    b"x-request-id",
)


def sender(headers: Headers) -> tuple[Forge, str]:
    """The forge, and the event as its header names it, shortened."""
    for forge, names in _NAMES:
        for name in names:
            if name in headers:
                return forge, plain(_text(headers[name])[:EVENT_LIMIT])
    # Standard Webhooks alone: GitLab's body says what it is.
    return (Forge.GITLAB, "") if b"webhook-signature" in headers else (Forge.UNKNOWN, "")


def delivery_id(headers: Headers) -> str:
    """What the forge calls this delivery, also when it is sent again; empty if it has no name."""
    return next((_text(headers[name])[:REF_LIMIT] for name in _IDS if name in headers), "")


def classify(headers: Headers, body: bytes) -> News:
    """What the delivery says. One of a kind that brings changes but can't be read counts as a change of the code."""
    forge, event = sender(headers)
    reader = READERS.get(forge)
    if reader is None:
        return News(event=event, note="no header names an event")
    try:
        if not body.startswith(b"{") and headers.get(b"content-type", b"").lower().startswith(FORM):
            body = _form_payload(body)
        return reader(event, body)
    except RecursionError:
        note = "it is nested too deeply to be read"
    except (msgspec.DecodeError, ValueError) as error:
        note = f"it can't be read: {error}"
    return News(event=event, what=frozenset({What.CODE}), note=note)


def _form_payload(body: bytes) -> bytes:
    """GitHub can send its JSON as the field `payload` of a form."""
    fields: dict[str, Any] = parse_qs(body.decode(errors="replace"), max_num_fields=FIELDS)
    found = fields.get("payload", [""])
    return str(found[0]).encode()


def _text(value: bytes) -> str:
    return value.decode("latin-1")
