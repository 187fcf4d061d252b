"""The check of signed runs: whether this user can sign, whom this machine trusts, and whether both agree."""

from pathlib import Path

from cli.checks import Check, Result
from cli.session import Session
from cli.signed_ledger import signing_of
from dstack.ledger.signing import Signing
from dstack.ledger.verifying import SignersFile, Verifier
from dstack.model.errors import DstackError
from dstack.model.settings import Settings
from dstack.model.signature import Distrusted

NAME = "signing"


def signing_check(session: Session, settings: Settings) -> Check:
    """A commit is signed, and verified where signers are set. It stays here."""
    try:
        return _looked(session, settings)
    except DstackError as error:
        return Check(name=NAME, result=Result.BAD, text=str(error))


def _looked(session: Session, settings: Settings) -> Check:
    signing = signing_of(session, settings)
    demand = "; all runs must be (`signed: true`)" if settings.signed else ""
    if signing is None:
        text = f"runs are not signed{demand}"
        way_out = ": set git up to sign (git config gpg.format ssh; git config user.signingkey ~/.ssh/id_ed25519.pub)"
        return Check(name=NAME, result=Result.BAD if demand else Result.GOOD, text=text + (way_out if demand else ""))
    probe = _probe(session, signing)
    if settings.signers is None:
        odd = ", but this machine names no signers, so no controller here decides anything" if demand else ""
        return Check(name=NAME, result=Result.ODD if odd else Result.GOOD, text=f"runs are signed{odd}")
    verifier = Verifier(SignersFile(path=Path(settings.signers).expanduser()))
    try:
        who = verifier.signer_of(session.cache.objects.raw_commit(probe), verifier.allowed())
    except Distrusted as error:
        text = f"runs are signed, but by nobody in {settings.signers}: {error}"
        return Check(name=NAME, result=Result.BAD if demand else Result.ODD, text=text)
    return Check(name=NAME, result=Result.GOOD, text=f"runs are signed as {who}, who is in {settings.signers}{demand}")


def _probe(session: Session, signing: Signing) -> str:
    objects = session.cache.objects
    write = signing.writer(objects, session.cache.context)
    return write(objects.write_tree({}), [], "dstack looks whether it can sign")
