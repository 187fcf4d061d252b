"""Which forge a git remote is on, and where its API is. Pure. A token goes to the code's own host, and nowhere else."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from dstack.model.errors import Invalid
from dstack.model.forge import ForgeKind, ForgeSettings

API_VARIABLE = "DSTACK_FORGE_API"

_SCP = re.compile(r"(?:[^/:@]+@)?([^/:@]+):(?!//)(.+)")
_VERSIONS = {ForgeKind.GITHUB: "/api/v3", ForgeKind.GITLAB: "/api/v4", ForgeKind.GITEA: "/api/v1"}
# The doors for ssh over port 443 (docs.github.com, docs.gitlab.com).
_DOORS = {"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com"}
_HOSTED = {"github.com": ForgeKind.GITHUB, "gitlab.com": ForgeKind.GITLAB, "codeberg.org": ForgeKind.GITEA}
# GitHub Enterprise Cloud with data residency.
_RESIDENT = ".ghe.com"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A project on a forge. `host` is the code's; `api` is without a slash at its end; `project`: `owner/name`."""

    kind: ForgeKind
    host: str
    api: str
    project: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.host}/{self.project}"

    @property
    def path(self) -> str:
        """The project's path below `api`."""
        if self.kind is ForgeKind.GITLAB:
            return f"/projects/{quote(self.project, safe='')}"
        return f"/repos/{quote(self.project)}"


def find_place(url: str | None, settings: ForgeSettings, own_api: str | None = None) -> Place:
    """The project of the code at `url`. `own_api` is the user's own word for where the API is. Raises Invalid."""
    found = _parts(url or "")
    if found is None:
        msg = f"the code is at {url or 'no remote'}, which is on no forge: the remote `origin` says where it is"
        raise Invalid(msg)
    host, netloc, path = found
    kind = settings.kind or _kind(host)
    if kind is None:
        msg = f"{host} may be any forge: say which, like `dstack config set forge 'kind: gitlab'` (or github, gitea)"
        raise Invalid(msg)
    api = (own_api or settings.api or _default_api(kind, host, netloc)).rstrip("/")
    if own_api is None:
        _check_trusted(api, host)
    project = _project(path, api, kind)
    if project is None:
        msg = f"{url} names no project on {host}: it should end like owner/name"
        raise Invalid(msg)
    return Place(kind=kind, host=host, api=api, project=project)


def _parts(url: str) -> tuple[str, str, str] | None:
    """Host, host with the port of its web server as far as it is known, and path."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if not host or parts.scheme not in ("https", "http", "ssh", "git+ssh", "ssh+git", "git"):
            return None
        host = _DOORS.get(host, host)
        web = f"{host}:{port}" if port and parts.scheme in ("https", "http") else host
        return host, web, parts.path
    match = _SCP.fullmatch(url)
    if match is None or len(match[1]) < 2:  # noqa: PLR2004 (a letter is a drive)
        return None
    host = _DOORS.get(match[1].lower(), match[1].lower())
    return host, host, match[2]


def _kind(host: str) -> ForgeKind | None:
    return ForgeKind.GITHUB if host.endswith(_RESIDENT) else _HOSTED.get(host)


def _default_api(kind: ForgeKind, host: str, netloc: str) -> str:
    if kind is ForgeKind.GITHUB and (host == "github.com" or host.endswith(_RESIDENT)):
        return f"https://api.{host}"
    return f"https://{netloc}{_VERSIONS[kind]}"


def _check_trusted(api: str, host: str) -> None:
    """Shared settings can be written by whoever pushes: they may not send a token elsewhere, nor unencrypted."""
    parts = urlsplit(api)
    if parts.hostname not in (host, f"api.{host}"):
        where = f"forge.api is on {parts.hostname}, and the code on {host}"
        msg = f"{where}: if that is right, set {API_VARIABLE}={api} where the token is, too"
        raise Invalid(msg)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        msg = f"forge.api is {api}: a token would travel unencrypted; use https, or set {API_VARIABLE}={api}"
        raise Invalid(msg)


def _project(path: str, api: str, kind: ForgeKind) -> str | None:
    prefix = urlsplit(api).path.removesuffix(_VERSIONS[kind]).strip("/")
    path = path.strip("/").removesuffix(".git")
    if prefix and path.startswith(f"{prefix}/"):
        path = path.removeprefix(f"{prefix}/")
    names = path.split("/")
    if len(names) < 2 or any(name in ("", ".", "..") or not name.isprintable() for name in names):  # noqa: PLR2004
        return None
    return path if kind is ForgeKind.GITLAB or len(names) == 2 else None  # noqa: PLR2004 (owner and name)
