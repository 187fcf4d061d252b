"""How a child git gets at a remote: settings and credentials, all through its environment, never its command line."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from dstack.ledger.address import Address

# Kept in our folder within the user's git folder, for the owner's eyes only.
CREDENTIALS = "credentials"

# Settings that say how to reach a remote. Nothing else of a repository's is taken along to ours.
_REACHING = re.compile(
    r"(?:credential|http|url|ssh|protocol)\..+|core\.(?:sshcommand|askpass|gitproxy)", re.IGNORECASE | re.DOTALL
)
_USER, _PASSWORD = "DSTACK_GIT_USER", "DSTACK_GIT_PASSWORD"
# A shell's own printf starts no process, so the values stand in no process list.
_HELPER = f"""!f() {{ test "$1" = get && printf 'username=%s\\npassword=%s\\n' "${_USER}" "${_PASSWORD}"; }}; f"""

Pairs = tuple[tuple[str, str], ...]


def is_reaching(name: str) -> bool:
    """Whether a git setting says how to reach a remote."""
    return _REACHING.fullmatch(name) is not None


def access(address: Address, reaching: Pairs, credentials: Path | None) -> dict[str, str]:
    """The environment for git at this address. `credentials`: a file of git-credential-store(1)."""
    # What we hand to git is rewritten already, and is its own longest rule: nothing brings a password back into it.
    pairs = [*reaching, (f"url.{address.url}.insteadOf", address.url)]
    more: dict[str, str] = {}
    if address.password is not None:
        pairs += [
            (f"url.{address.url}.pushInsteadOf", address.url),
            ("credential.helper", ""),
            # For this host alone: a server may send git to another one, which asks for a password, too.
            (f"credential.{_origin(address)}.helper", _HELPER),
        ]
        more = {_USER: address.user, _PASSWORD: address.password}
    elif address.user:
        pairs.append((f"credential.{address.url}.username", address.user))
    if credentials is not None:
        pairs.append(("credential.helper", f"store --file={shlex.quote(str(credentials))}"))
    return {**configured(pairs), **more}


def _origin(address: Address) -> str:
    scheme, _, rest = address.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def configured(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Git settings as variables of the environment (git-config(1), ENVIRONMENT)."""
    found: dict[str, str] = {}
    for number, (name, value) in enumerate(pairs):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {"GIT_CONFIG_COUNT": str(len(found) // 2), **found} if found else {}


def pairs_of(environment: Mapping[str, str]) -> Pairs:
    """The settings in an environment's `GIT_CONFIG_COUNT`; what is malformed counts for nothing."""
    count = environment.get("GIT_CONFIG_COUNT", "")
    names = (
        (environment.get(f"GIT_CONFIG_KEY_{number}"), environment.get(f"GIT_CONFIG_VALUE_{number}"))
        for number in range(int(count) if count.isdecimal() and len(count) <= 4 else 0)  # noqa: PLR2004 (sane)
    )
    return tuple((name, value) for name, value in names if name is not None and value is not None)


def keep_credentials(folder: Path, address: Address) -> None:
    """Keep what an address held in a file for the owner's eyes only, as git-credential-store(1) reads it."""
    parts = urlsplit(address.url)
    host = parts.netloc.rpartition("@")[2]
    login = f"{quote(address.user, safe='')}:{quote(address.password or '', safe='')}"
    path = folder / CREDENTIALS
    others = [line for line in _lines(path) if line.rpartition("@")[2] != host]
    folder.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{CREDENTIALS}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in [*others, f"{parts.scheme}://{login}@{host}"])
    scratch.replace(path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
