"""The token for a forge: from the environment, else from git's credential helper. It is never shown or written down."""

from collections.abc import Callable, Mapping

from dstack.forge.place import Place
from dstack.model.errors import Failed
from dstack.model.forge import ForgeKind

OWN = "DSTACK_FORGE_TOKEN"
# The names that the forges' own command lines use (`gh help environment`, `glab help`).
_GITHUB = ("GH_TOKEN", "GITHUB_TOKEN")
_ENTERPRISE = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
_GITLAB = ("GITLAB_TOKEN",)
_GITEA = ("GITEA_TOKEN", "FORGEJO_TOKEN")


def variables(place: Place) -> tuple[str, ...]:
    """Those that are looked at, the first that is set wins. A token for github.com goes to no other host."""
    if place.kind is ForgeKind.GITLAB:
        return (OWN, *_GITLAB)
    if place.kind is ForgeKind.GITEA:
        return (OWN, *_GITEA)
    hosted = place.host == "github.com" or place.host.endswith(".ghe.com")
    return (OWN, *(_GITHUB if hosted else _ENTERPRISE))


def find_token(place: Place, environ: Mapping[str, str], ask_git: Callable[[], str | None]) -> str:
    """The token. `ask_git` asks git's credential helper for the code's host. Raises Failed where there is none."""
    for name in variables(place):
        if value := environ.get(name, "").strip():
            return _checked(value, name)
    if value := (ask_git() or "").strip():
        return _checked(value, "git's credential helper")
    names = " or ".join(variables(place))
    msg = f"there is no token for {place.host}: set {names}, or have git keep one (`git credential approve`)"
    raise Failed(msg)


def _checked(token: str, where: str) -> str:
    """A header can hold no more than this."""
    if not token.isascii() or not token.isprintable() or " " in token:
        msg = f"the token from {where} holds characters that no token has"
        raise Failed(msg)
    return token
