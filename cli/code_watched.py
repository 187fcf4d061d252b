"""Composes what triggers look with: the code remote, where that is known, behind a cache of its own."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cli.forge import forge_of
from cli.signed_ledger import signer_of_code
from controller.firing import CodeSource
from controller.main import CodeParts
from dstack.ledger import folder
from dstack.ledger.address import without_credentials
from dstack.ledger.code import CodeRepository
from dstack.ledger.codecache import CodeCache, make_lender
from dstack.ledger.facts import FactFinder
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.remote import Remote, choose_remote
from dstack.ledger.triggered import Triggered
from dstack.model.bucket import POLL_SECONDS
from dstack.model.forge import ForgeSettings
from dstack.model.settings import Settings


class Coded(Protocol):
    """Where the code is."""

    @property
    def url(self) -> str | None:
        """Its address, without credentials."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePlace:
    """The code remote, and the state remote whose controller looks at it. `place`: a folder of our own."""

    code: Remote
    state: Remote
    place: Path

    @property
    def apart(self) -> bool:
        """Whether they are two repositories."""
        return self.code.url != self.state.url

    @property
    def lenders(self) -> tuple[Path, ...]:
        """The folder of objects that is to be borrowed to push commits of the code; it is there."""
        if self.code.objects:
            return (self.code.objects,) if self.apart else ()
        return (make_lender(self._fetched),)

    @property
    def _fetched(self) -> Path:
        return self.place / "code"

    def parts(self, ledger: GitLedger, settings: Settings, poll: float | None) -> CodeParts:
        """What a controller is made of that has triggers. Nothing is looked at yet."""
        remote = self.code
        usual = POLL_SECONDS[remote.reach]
        return CodeParts(
            open=lambda: self._open(settings),
            tagged=ledger.tagged,
            poll=usual if poll is None else max(poll, usual),
            watched=remote.path is not None,
            bases=self._bases,
        )

    def _bases(self, settings: ForgeSettings) -> Mapping[int, str]:
        if self.code.path:
            return {}  # no forge has it
        with closing(forge_of(without_credentials(self.code.url), settings, self.code.context(self.place))) as forge:
            return forge.bases()

    def _open(self, settings: Settings) -> CodeSource:
        cache = CodeCache(self._fetched, self.code)
        objects = folder.open_folder(self.place / "triggers", (cache.objects_folder,))
        finder = FactFinder(code=cache, objects=objects, signer=signer_of_code(settings))
        url = None if self.code.path else without_credentials(self.code.url)
        return Triggered(cache, finder, url=url, apart=self.apart)


def code_place(code: Coded, state: Remote, place: Path) -> CodePlace:
    """Where the code of a session is: in a clone its `origin`, or the clone itself where it has none."""
    if isinstance(code, Remote):
        return CodePlace(code=code, state=state, place=place)
    if isinstance(code, CodeRepository):
        settings = {name: value for name, value in code.settings.items() if name != "dstack.remote"}
        origin = choose_remote(settings, code.top, code.common, code.reaching)
        return CodePlace(code=origin, state=state, place=place)
    msg = f"{type(code).__name__} is no place of code"
    raise TypeError(msg)
