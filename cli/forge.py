"""Composes the forge for commands and daemons: its place from the code's remote, a token, and the reporter."""

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.reporting import Reporting, Turn
from dstack.ledger.git import Context
from dstack.model.forge import ForgeSettings
from dstack.store.store import Store

if TYPE_CHECKING:
    from dstack.forge.forge import Forge


def forge_of(url: str | None, settings: ForgeSettings, context: Context) -> "Forge":
    """The forge that the code at `url` is on. `context`: how git asks for credentials. Raises DstackError."""
    from dstack.forge.opening import open_forge  # noqa: PLC0415 (httpx takes 100 ms that others needn't wait)
    from dstack.ledger.credentials import ask_password  # noqa: PLC0415 (likewise)

    return open_forge(url, settings, os.environ, lambda host: ask_password(context, host))


def reporting(url: str | None, context: Context, open_store: Callable[[str], Store]) -> Reporting:
    """What reports runs to the forge that the code at `url` is on, where the shared settings say so."""

    def make() -> Turn:
        from controller.report_turn import ReportTurn  # noqa: PLC0415 (jinja2 and httpx, where there is a forge)

        return ReportTurn(
            open_forge=lambda settings: forge_of(url, settings, context), open_store=open_store, jitter=random.random
        )

    return Reporting(make=make)
