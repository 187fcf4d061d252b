"""The state remote: the repository that holds the state of all runs, chosen by the user's git settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dstack.model.errors import Invalid

_WAY_OUT = (
    "keep the state here (git config dstack.remote .) or in a repository on this machine (dstack init --remote DIR)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A repository on this machine. `name` is what the user called it, `path` its git folder."""

    name: str
    path: Path

    @property
    def url(self) -> str:
        """What `git fetch` and `git push` are given."""
        return str(self.path)

    @property
    def objects(self) -> Path:
        """Its folder of objects."""
        return self.path / "objects"


def choose_remote(settings: Mapping[str, str], top: Path, common: Path) -> Remote:
    """`dstack.remote` (a remote's name, `.`, a path or a URL), else `origin`, else the repository itself.

    `settings` are git's, by name in lower case. Raises Invalid.
    """
    name = settings.get("dstack.remote") or ("origin" if "remote.origin.url" in settings else ".")
    if name == ".":
        return Remote(name=name, path=common)
    url = _rewritten(settings.get(f"remote.{name}.url", name), settings)
    return local_remote(url, top, name=name)


def local_remote(url: str, top: Path, *, name: str | None = None) -> Remote:
    """The remote at a path (relative to `top`) or `file://` URL. Raises Invalid for any other."""
    path = _local_path(url, top, name or url)
    git_dir = path / ".git"
    if git_dir.is_file():
        path = _linked(git_dir)
    elif git_dir.is_dir():
        path = git_dir
    return Remote(name=name or url, path=_common(path).resolve())


def without_credentials(url: str) -> str:
    """`url` as it may be shown and recorded: a token or password in it is for the user's own git alone."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    kept = user.partition(":")[0] + at if "ssh" in scheme else ""
    return f"{scheme}{mark}{kept}{host}{slash}{path}"


def _local_path(url: str, top: Path, name: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in url or (":" in url.split("/", 1)[0] and not (top / url).exists()):
        where = " at ".join(dict.fromkeys(without_credentials(one) for one in (name, url)))
        msg = f"the state remote {where} is on another machine, which is not yet supported: {_WAY_OUT}"
        raise Invalid(msg)
    path = top / Path(url).expanduser()
    if "/" not in url and not path.exists():
        msg = f"dstack.remote (git config) is {url!r}, but neither a remote nor a folder has that name: {_WAY_OUT}"
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
