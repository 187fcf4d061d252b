"""The path at which a controller's receiver knows a repository: unguessable without one of its secrets or tokens. Pure."""

import hashlib
import hmac

LENGTH = 32


def hook_path(secret: str, repository: str) -> str:
    """`<p>` of `/hooks/<p>`, `/wake/<p>` and `/poke/<p>`: 32 hex digits.

    `secret`: any of the webhook secrets or tokens the receiver has; `repository`: the repository's id, or the name the
    controller's configuration gives it. The receiver answers at the path of each of these pairs.
    """
    return hmac.new(secret.encode(), repository.encode(), hashlib.sha256).hexdigest()[:LENGTH]
