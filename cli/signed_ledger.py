"""A ledger whose run branches are signed where the settings, or the user's git, say so."""

from collections.abc import Callable
from pathlib import Path

from cli.session import Session
from cli.terminal import can_ask
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.objects import Objects
from dstack.ledger.signing import Signing, is_wanted, settings_of
from dstack.ledger.verifying import SignersFile, Verifier
from dstack.model.settings import Settings


def signed_ledger(session: Session, settings: Settings) -> GitLedger:
    """Over the session's cache. `settings` are those that hold here."""
    return GitLedger(session.cache, signing=signing_of(session, settings, prompt=can_ask()))


def signing_of(session: Session, settings: Settings, *, prompt: bool = False) -> Signing | None:
    """How commits are signed here; None: not at all. `prompt`: somebody can be asked for a passphrase."""
    code = session.code
    if not is_wanted(settings.sign, code.settings):
        return None
    return Signing(settings=code.settings, top=code.top, prompt=prompt)


def signing_in(folder: Path, settings: Settings) -> Signing | None:
    """The same for a daemon, which can ask nobody: by what git is set to where it works. Raises Failed, Unavailable."""
    found = settings_of(folder) if settings.sign is not False else {}
    return Signing(settings=found, top=folder) if is_wanted(settings.sign, found) else None


def signer_of_code(settings: Settings) -> Callable[[Objects, str], str]:
    """Tells whose signature a commit of the code bears: nobody's where this machine names no signers."""
    if settings.signers is None:
        return lambda _objects, _commit: ""
    return Verifier(SignersFile(path=Path(settings.signers).expanduser())).signer_of_code
