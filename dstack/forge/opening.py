"""Opens a forge: place, token, client, and whose API it speaks."""

from collections.abc import Callable, Mapping

import httpx

from dstack.forge import github, gitlab
from dstack.forge.client import Client
from dstack.forge.exchange import open_http
from dstack.forge.forge import Forge
from dstack.forge.place import API_VARIABLE, Place, find_place
from dstack.forge.tokens import find_token
from dstack.model.forge import ForgeKind, ForgeSettings


def open_forge(
    url: str | None, settings: ForgeSettings, environ: Mapping[str, str], ask_git: Callable[[str], str | None]
) -> Forge:
    """The forge that the code at `url` is on. `ask_git` asks git's credential helper for a host. Raises DstackError."""
    place = find_place(url, settings, environ.get(API_VARIABLE) or None)
    token = find_token(place, environ, lambda: ask_git(place.host))
    return forge_at(place, token, open_http())


def forge_at(place: Place, token: str, http: httpx.Client) -> Forge:
    """The forge at a place, spoken to over `http`."""
    if place.kind is ForgeKind.GITLAB:
        return gitlab.GitLab(place, Client(api=place.api, headers=gitlab.token_headers(token), http=http))
    headers = github.token_headers(place.kind, token)
    return github.GitHub(place, Client(api=place.api, headers=headers, http=http))
