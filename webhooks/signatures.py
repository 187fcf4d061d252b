"""Whether a delivery is from who knows the secret: over the raw body, in constant time, before any parsing. Pure."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

Headers = Mapping[bytes, bytes]

# How far a signed time may be off (Standard Webhooks: 5 minutes).
WINDOW_SECONDS = 300
# So many signatures are looked at: a sender that rotates its key sends two.
SIGNATURES = 8
STANDARD_PREFIX = "whsec_"

_TIME = re.compile(rb"[0-9]{1,12}")
_HEX = (b"x-forgejo-signature", b"x-gitea-signature", b"x-gogs-signature")
_PREFIXED = (b"x-hub-signature-256", b"x-hub-signature")
_SHA256 = b"sha256="


def refusal(headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> str:
    """Why the delivery is not believed; empty if it is. `headers` in lower case; `now`: seconds since 1970.

    The first of these headers that is there decides: `webhook-signature` (Standard Webhooks; GitLab's signing token),
    `X-Gitlab-Token`, `X-Forgejo-Signature`, `X-Gitea-Signature`, `X-Hub-Signature-256` (GitHub), `X-Hub-Signature`
    (Bitbucket, with SHA-256).
    """
    if b"webhook-signature" in headers:
        return _standard(headers, body, secrets, now)
    if b"x-gitlab-token" in headers:
        good = _any_equal([secret.encode() for secret in secrets], [headers[b"x-gitlab-token"]])
        return "" if good else "X-Gitlab-Token is none of the secrets"
    for name in _HEX:
        if name in headers:
            return _hexadecimal(name, headers[name], body, secrets)
    for name in _PREFIXED:
        if name in headers:
            return _prefixed(name, headers[name], body, secrets)
    return "it carries no signature: the webhook has no secret at the forge"


def _standard(headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> str:
    """https://github.com/standard-webhooks/standard-webhooks, as GitLab's signing tokens have it."""
    identity, at = headers.get(b"webhook-id", b""), headers.get(b"webhook-timestamp", b"")
    if not identity or not _TIME.fullmatch(at):
        return "webhook-id or webhook-timestamp is missing, or no number"
    signed = b".".join((identity, at, body))
    made = [b"v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)) for secret in secrets]
    if not _any_equal(made, headers[b"webhook-signature"].split(b" ", SIGNATURES)[:SIGNATURES]):
        return "no signature in webhook-signature matches"
    if abs(now - int(at)) > WINDOW_SECONDS:
        return (
            f"it was signed {abs(now - int(at)):.0f} s away from now by webhook-timestamp: a replay, or a wrong clock"
        )
    return ""


def _key(secret: str) -> bytes:
    if secret.startswith(STANDARD_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
        except binascii.Error:
            pass  # then it only looks like one
    return secret.encode()


def _prefixed(name: bytes, value: bytes, body: bytes, secrets: Sequence[str]) -> str:
    if not value.startswith(_SHA256):
        return f"{_shown(name)} is not by SHA-256, which is asked for"
    return _hexadecimal(name, value.removeprefix(_SHA256), body, secrets)


def _hexadecimal(name: bytes, value: bytes, body: bytes, secrets: Sequence[str]) -> str:
    made = [hmac.digest(secret.encode(), body, hashlib.sha256).hex().encode() for secret in secrets]
    return "" if _any_equal(made, [value]) else f"{_shown(name)} doesn't match"


def _any_equal(ours: Sequence[bytes], theirs: Sequence[bytes]) -> bool:
    """Each is compared with each: how long it takes tells nothing."""
    equal = [hmac.compare_digest(one, other) for one in ours for other in theirs]
    return any(equal)


def _shown(name: bytes) -> str:
    return name.decode().title()
