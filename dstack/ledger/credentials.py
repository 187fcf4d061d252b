"""What git's credential helpers know of a host, asked without ever prompting anybody (git-credential(1))."""

from dataclasses import replace

from dstack.ledger import git
from dstack.ledger.git import Context

# Empty: no program asks either, whichever git is set to (git's prompt.c).
_SILENT = {"GIT_ASKPASS": "", "SSH_ASKPASS": ""}
SECONDS = 20.0


def ask_password(context: Context, host: str, path: str = "") -> str | None:
    """The password, or token, for `https://<host>/<path>`; None where no helper knows. Raises Unavailable, Failed."""
    wanted = {"protocol": "https", "host": host, "path": path}
    if any("\n" in value or "\0" in value for value in wanted.values()):
        return None
    text = "".join(f"{key}={value}\n" for key, value in wanted.items() if value)
    silent = replace(
        context, environment={**context.environment, **_SILENT}, prompt=False, timeout=min(context.timeout, SECONDS)
    )
    found = git.run(silent, "credential", "fill", stdin=f"{text}\n".encode())
    if found.status != 0:
        return None
    for line in found.out.decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key == "password":
            return value or None
    return None
