"""What a runner's owner demands of the runs it executes: settings that nobody else can loosen (DESIGN section 12)."""

from collections.abc import Iterable
from pathlib import Path

from dstack.ledger.verifying import SignersFile
from dstack.model.codec import Value
from dstack.model.errors import Invalid


class Trust(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`signed`: only runs whose every commit is signed by one of the `signers` (a file). `forks`: also code of forks.

    `revoked`: a file of keys that count no more. `gnupg`: the GPG home with the signers' keys; None: the user's own.
    """

    signed: bool = False
    signers: str | None = None
    revoked: str | None = None
    gnupg: str | None = None
    forks: bool = False

    @property
    def file(self) -> SignersFile | None:
        """Where the signers stand, if that is set."""
        if self.signers is None:
            return None
        return SignersFile(path=Path(self.signers), revoked=_path(self.revoked), gnupg=_path(self.gnupg))


def check_trust(trust: Trust) -> None:
    """Raises Invalid."""
    places = {"signers": trust.signers, "revoked": trust.revoked, "gnupg": trust.gnupg}
    for name, place in _given(places.items()):
        if not Path(place).is_absolute():
            msg = f"trust: {name} is {place!r}, which is no absolute path"
            raise Invalid(msg)
    if trust.signed and trust.signers is None:
        msg = "trust: signed runs are demanded, but signers are missing: name a file with --signers FILE"
        raise Invalid(msg)


def _given(places: Iterable[tuple[str, str | None]]) -> Iterable[tuple[str, str]]:
    return ((name, place) for name, place in places if place is not None)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
