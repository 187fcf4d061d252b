"""A ledger whose run branches are signed where the settings, or the user's git, say so."""

from cli.session import Session
from cli.terminal import can_ask
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.signing import Signing, is_wanted
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
