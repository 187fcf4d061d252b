"""`dstack init --webhook`: has the forge tell the controller of pushes, and the controller tell the forge of runs."""

import os
import random
import secrets
import time
from contextlib import closing

from msgspec.structs import replace

from cli.fleet_config import lent_secrets
from cli.forge import forge_of
from cli.session import Seen, Session
from cli.shared_settings import change_settings
from cli.terminal import say, tell
from dstack.forge.forge import Forge, Hook
from dstack.forge.hooks import check_public, keep_hook, patiently
from dstack.model.errors import Invalid
from dstack.model.forge import ForgeKind, ForgeSettings
from dstack.model.hookpath import hook_url

SECRET = "DSTACK_WEBHOOK_SECRET"  # noqa: S105 (a variable's name)
CONTROLLER = "DSTACK_CONTROLLER_URL"
SECRET_BYTES = 32


def public_address(given: str) -> str:
    """The controller's address as the forge sees it: given, else as the environment says. Raises Invalid."""
    url = given or os.environ.get(CONTROLLER, "")
    if not url:
        msg = f"say where the forge reaches the controller: --webhook https://dstack.example.org (or {CONTROLLER})"
        raise Invalid(msg)
    return check_public(url)


def set_up_webhook(session: Session, seen: Seen, public: str) -> None:
    """Create or change the hook; turn reporting on where nothing is set about it. Raises DstackError."""
    forge = forge_of(session.code.url, seen.settings.forge or ForgeSettings(), session.remote.context(session.place))
    with closing(forge):
        _keep(seen, forge, public)
    if seen.shared.forge is None:
        change_settings(session, lambda before: replace(before, forge=ForgeSettings()), "Report runs to the forge")
        say("Reports:      commits and pull requests show how runs ended; `dstack config set forge --unset` ends that")


def _keep(seen: Seen, forge: Forge, public: str) -> None:
    known = lent_secrets(SECRET)
    secret = known[0] if known else secrets.token_hex(SECRET_BYTES)
    hook = Hook(url=hook_url(public, secret, seen.known_repository()), secret=secret)
    kept = patiently(lambda: keep_hook(forge, hook), sleep=time.sleep, jitter=random.random)
    say(f"Webhook:      {'created' if kept.created else 'brought up to date'} at {forge.place.name}, leads to {public}")
    for other in kept.others:
        tell(f"Another webhook there leads to the same controller: {other}. Is it needed?")
    if public.startswith("http:"):
        more = ", and with them the secret" if forge.place.kind is ForgeKind.GITLAB else ""
        tell(f"Its deliveries travel unencrypted{more}: https would protect them.")
    if not known:
        say(f"Secret:       {SECRET}={secret}")
        say("              Set it where the controller runs (`dstack controller --http`); it isn't shown again.")
