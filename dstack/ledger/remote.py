"""The state remote: the repository that holds the state of all runs, chosen by the user's git settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dstack.ledger.access import CREDENTIALS, Pairs, access
from dstack.ledger.address import parse_address, without_credentials
from dstack.ledger.git import TIMEOUT, Context
from dstack.model.bucket import Reach
from dstack.model.errors import Invalid

_AWAY_SECONDS = 60.0
_WAY_OUT = "give a remote's name, a URL, a folder, or `.` for this repository (dstack init --remote)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """`name` is what the user called it, without credentials; `url` what git is given, without them too.

    `path`: its git folder, where it is on this machine. `environment` is for the git that talks to it: credentials, and
    the settings of the user's repository on how to reach a remote.
    """

    name: str
    url: str
    path: Path | None = None
    reach: Reach = Reach.LOCAL
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def objects(self) -> Path | None:
        """Its folder of objects, where it is on this machine."""
        return self.path / "objects" if self.path else None

    def context(self, folder: Path) -> Context:
        """How a daemon's git works in `folder` with this remote. A connection that hangs mustn't cost it two leases."""
        timeout = TIMEOUT if self.path else min(TIMEOUT, _AWAY_SECONDS)
        return Context(folder=folder, environment=self.environment, timeout=timeout)


def choose_remote(settings: Mapping[str, str], top: Path, common: Path, reaching: Pairs = ()) -> Remote:
    """`dstack.remote` (a remote's name, `.`, a path or a URL), else `origin`, else the repository itself.

    `settings` are git's, by name in lower case. `reaching`: those of this repository alone that say how to reach a
    remote. Raises Invalid.
    """
    name = settings.get("dstack.remote") or ("origin" if "remote.origin.url" in settings else ".")
    if name == ".":
        return Remote(name=name, url=str(common), path=common)
    url = _rewritten(settings.get(f"remote.{name}.url", name), settings)
    proxy = settings.get(f"remote.{name}.proxy")
    kept = common / "dstack" / CREDENTIALS
    more = (*reaching, *((("http.proxy", proxy),) if proxy is not None else ()))
    return find_remote(url, top, name=name, reaching=more, credentials=kept if kept.is_file() else None)


def find_remote(
    url: str, top: Path, *, name: str | None = None, reaching: Pairs = (), credentials: Path | None = None
) -> Remote:
    """The remote at a URL, or at a path relative to `top`. `credentials`: a file as git-credential-store(1) reads it.

    Raises Invalid.
    """
    address = parse_address(url)
    if address.host is not None and not ("://" not in url and (top / url).exists()):
        shown = without_credentials(name) if name else address.url
        environment = access(address, reaching, credentials)
        return Remote(name=shown, url=address.url, reach=address.reach, environment=environment)
    path = _local_path(url, top)
    git_dir = path / ".git"
    if git_dir.is_file():
        path = _linked(git_dir)
    elif git_dir.is_dir():
        path = git_dir
    path = _common(path).resolve()
    return Remote(name=name or url, url=str(path), path=path)


def _local_path(url: str, top: Path) -> Path:
    if "://" in url:
        return Path(unquote(urlsplit(url).path))
    path = top / Path(url).expanduser()
    if "/" not in url and not path.exists():
        msg = f"the state remote is {url!r}, but neither a remote nor a folder has that name: {_WAY_OUT}"
        raise Invalid(msg)
    return path


def _linked(git_file: Path) -> Path:
    """Where the `.git` file of a linked work tree or submodule points."""
    text = git_file.read_text(errors="surrogateescape").strip()
    return git_file.parent / text.removeprefix("gitdir:").strip()


def _common(path: Path) -> Path:
    """The git folder that a linked work tree's own one shares with the others."""
    pointer = path / "commondir"
    return path / pointer.read_text(errors="surrogateescape").strip() if pointer.is_file() else path


def _rewritten(url: str, settings: Mapping[str, str]) -> str:
    """`url` after git's `url.<base>.insteadOf`: the longest prefix wins."""
    rules = [
        (prefix, name.removeprefix("url.").removesuffix(".insteadof"))
        for name, prefix in settings.items()
        if name.startswith("url.") and name.endswith(".insteadof") and url.startswith(prefix)
    ]
    if not rules:
        return url
    prefix, replacement = max(rules, key=lambda rule: len(rule[0]))
    return replacement + url.removeprefix(prefix)
