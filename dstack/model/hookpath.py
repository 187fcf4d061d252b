"""The unguessable part of the paths that webhooks and wake-ups of a repository arrive at."""

import hashlib
import hmac

LENGTH = 32
HOOKS = "/hooks/"


def hook_path(secret: str, name: str) -> str:
    """32 hexadecimal digits: of HMAC-SHA256 over the repository's name, keyed with its first secret or token."""
    return hmac.digest(secret.encode(), name.encode(), hashlib.sha256).hex()[:LENGTH]


def hook_url(public: str, secret: str, name: str) -> str:
    """Where a forge sends this repository's deliveries: `public` is the address the controller is reached at."""
    return f"{public.rstrip('/')}{HOOKS}{hook_path(secret, name)}"
