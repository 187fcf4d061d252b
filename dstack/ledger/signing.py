"""Signs the commits of run branches by git itself, with the settings and keys of whoever works here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dstack.ledger import git
from dstack.ledger.access import configured
from dstack.ledger.git import Context
from dstack.ledger.objects import AUTHOR_MAIL, AUTHOR_NAME, Objects, with_nonce
from dstack.ledger.runs import WriteCommit
from dstack.model.errors import Failed, Invalid

# What git config is asked for: all that says whether, how and with which key is signed.
SETTINGS = r"^(gpg\.|user\.|commit\.gpgsign$)"
# Somebody may have to type a passphrase, or touch a key.
_SECONDS = 300.0
_LITERAL = ("key::", "ssh-", "ecdsa-", "sk-")
_TRUE = ("true", "yes", "on", "1", "")
_WAY_OUT = "mend it, or submit unsigned: `dstack config set sign false --personal`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How to sign: git's settings by name (in lower case). `top`: where relative paths of keys begin."""

    settings: Mapping[str, str]
    top: Path
    prompt: bool = False

    def writer(self, objects: Objects, context: Context) -> WriteCommit:
        """Writes signed commits into the repository of ours at `context.folder`. Raises Failed where they can't be."""

        def write(tree: str, parents: Sequence[str], message: str) -> str:
            args = [f"-S{key}" if (key := self._key()) else "-S", *(part for one in parents for part in ("-p", one))]
            here = replace(context, environment=self._environment(objects), timeout=_SECONDS, prompt=self.prompt)
            done = git.run(here, "commit-tree", *args, tree, stdin=with_nonce(message).encode())
            oid = done.out.decode().strip()
            if done.status != 0 or not oid:
                msg = f"the run can't be signed, so nothing was pushed: {_words(done)}; {_WAY_OUT}"
                raise Failed(msg)
            return oid

        return write

    def _key(self) -> str:
        """The key as git takes it from any folder."""
        key = self.settings.get("user.signingkey", "")
        if self.settings.get("gpg.format") != "ssh" or not key or key.startswith(_LITERAL):
            return key
        return str(self.top / Path(key).expanduser())

    def _environment(self, objects: Objects) -> dict[str, str]:
        """Settings of one repository alone are unknown to a git in another; the committer is whose key it is."""
        mail = os.environ.get("GIT_COMMITTER_EMAIL") or self.settings.get("user.email") or AUTHOR_MAIL
        name = os.environ.get("GIT_COMMITTER_NAME") or self.settings.get("user.name") or AUTHOR_NAME
        taken = [(name, value) for name, value in self.settings.items() if name.startswith("gpg.")]
        when = f"{int(objects.clock())} +0000"
        return {
            "GIT_DIR": objects.repository.path,
            "GIT_AUTHOR_NAME": AUTHOR_NAME,
            "GIT_AUTHOR_EMAIL": AUTHOR_MAIL,
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": mail,
            "GIT_COMMITTER_DATE": when,
            **configured([*taken, ("i18n.commitEncoding", "utf-8")]),
        }


def is_wanted(sign: bool | str, settings: Mapping[str, str]) -> bool:  # noqa: FBT001 (a setting's value)
    """Whether to sign: as the setting `sign` says, and for `auto` where git itself is set up to. Raises Invalid."""
    if isinstance(sign, bool):
        return sign
    if sign != "auto":
        msg = f"sign is {sign!r}; it can be true, false or auto"
        raise Invalid(msg)
    always = settings.get("commit.gpgsign")
    if always is not None:
        return always.lower() in _TRUE
    return bool(settings.get("user.signingkey") and settings.get("gpg.format"))


def settings_of(folder: Path) -> dict[str, str]:
    """What git is set to, as seen from a folder. Raises Failed, Unavailable."""
    found = git.run(Context(folder=folder), "config", "--null", "--get-regexp", SETTINGS)
    entries = (text.partition("\n") for text in found.out.decode(errors="surrogateescape").split("\0"))
    return {name: value for name, _, value in entries if name}


def _words(done: git.Result) -> str:
    """All that git and the signer said: the last line alone names no cause."""
    lines = [line.strip() for line in done.err.decode(errors="replace").splitlines()]
    told = [line.removeprefix("error: ").removeprefix("fatal: ").rstrip("?! ") for line in lines if line]
    return "; ".join(line for line in told if line != "failed to write commit object")[:600] or "git gives no reason"
