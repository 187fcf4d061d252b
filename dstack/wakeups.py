"""Hears from a controller that something has changed, and tells it so: behind it everybody polls all the same.

A wake-up carries no news, so nothing it says is believed: a lie costs a poll. See docs/webhooks.md.
"""

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.model.codec import Value, decode
from dstack.model.errors import Failed, Invalid
from dstack.model.hookpath import hook_path

LOG = logging.getLogger(__name__)

TOKEN = "DSTACK_CONTROLLER_TOKEN"  # noqa: S105 (its name)
TOKEN_LIMIT = 4096
ANSWER_LIMIT = 4096
# The controller answers after 50 s at the latest.
LISTEN_SECONDS = 65.0
POKE_SECONDS = 5.0
NOW_SECONDS = 2.0
# How long it is waited after trouble: growing from the first to the last.
FIRST_SECONDS, LONGEST_SECONDS = 0.75, 60.0
# One that knows us not won't soon.
REFUSED_SECONDS = 300.0
# How often it is looked whether there is an address by now.
UNSET_SECONDS = 1.0

_OTHERS = 0o077
_OK, _HEARD = 200, 202
_REFUSED = frozenset({400, 401, 403, 404, 405})


class _Answer(Value, frozen=True, kw_only=True):
    change: int


class RefusedError(Exception):
    """The controller won't have us: the sentence says why."""


def token_of(environ: Mapping[str, str]) -> str:
    """The token for the controller: of the variable, or of the private file that its namesake with `_FILE` names.

    Of several the first. Empty where there is none. Raises Failed.
    """
    text, file = environ.get(TOKEN, ""), environ.get(f"{TOKEN}_FILE")
    if not text and file:
        text = _private(Path(file).expanduser())
    words = [word for line in text.splitlines() for part in line.split(",") if (word := part.strip())]
    return words[0] if words else ""


@dataclass(slots=True, kw_only=True)
class Wakeups:
    """Of one repository, by its id. `url` gives the controller's address as it is known by now, if it is.

    `woke` is called from a thread whenever something may have changed. Without a token nothing is ever begun.
    """

    repository: str
    token: str = field(repr=False)
    url: Callable[[], str | None]
    woke: Callable[[], None]
    jitter: Callable[[], float] = random.random
    _stopped: threading.Event = field(default_factory=threading.Event)
    _poked: threading.Event = field(default_factory=threading.Event)
    _poking: threading.Lock = field(default_factory=threading.Lock)
    _told: str = ""

    def start(self) -> None:
        """Listen from now on."""
        if self.token:
            threading.Thread(target=self._listen, name="wake-ups", daemon=True).start()

    def poke(self) -> None:
        """Have the controller told that something was pushed; returns at once, and never fails."""
        if not self.token or self._stopped.is_set():
            return
        if not self._poked.is_set():
            self._poked.set()
            threading.Thread(target=self._poke, name="poke", daemon=True).start()

    def poke_now(self, seconds: float = POKE_SECONDS) -> None:
        """Likewise, in this thread: in so many seconds at most."""
        url = self.url()
        if not url:
            return
        try:
            status, _ = self._ask("POST", url, f"/poke/{self._path}", seconds)
        except Exception as error:  # noqa: BLE001 (of the library and the network; polling goes on)
            LOG.debug("%s was not told: %s", _place(url), type(error).__name__)
            return
        if status != _HEARD:
            self._tell(str(_refusal(status, url)))

    def stop(self) -> None:
        """Call nobody any more; returns at once."""
        self._stopped.set()

    def _listen(self) -> None:
        since, failures = 0, 0
        while not self._stopped.is_set():
            url = self.url()
            if not url:
                self._stopped.wait(UNSET_SECONDS)
                continue
            try:
                change = self.wait(url, since)
            except RefusedError as error:
                self._tell(str(error))
                self._stopped.wait(REFUSED_SECONDS * (0.5 + self.jitter() / 2))
                continue
            except Exception as error:  # noqa: BLE001 (of the library and the network; polling goes on)
                failures += 1
                self._tell(f"{_place(url)} doesn't answer ({type(error).__name__}): changes are found by polling")
                longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(failures, 16))
                self._stopped.wait(longest * (0.5 + self.jitter() / 2))
                continue
            failures = 0
            self._over()
            if change != since and not self._stopped.is_set():
                since = change
                self.woke()

    def wait(self, url: str, since: int, seconds: float = LISTEN_SECONDS) -> int:
        """The number of the last change, as soon as it is another one. Raises what the library raises, RefusedError."""
        status, body = self._ask("GET", url, f"/wake/{self._path}?since={since}", seconds)
        if status != _OK:
            raise _refusal(status, url)
        try:
            return decode(body, _Answer, "its answer", limit=ANSWER_LIMIT).change
        except Invalid as error:
            msg = f"{_place(url)} is no dstack controller: {error}"
            raise RefusedError(msg) from error

    def _poke(self) -> None:
        with self._poking:  # one is under way and one waits, at most
            self._poked.clear()  # what is pushed from now on needs another one
            self.poke_now()

    @property
    def _path(self) -> str:
        return hook_path(self.token, self.repository)

    def _ask(self, method: str, url: str, path: str, seconds: float) -> tuple[int, bytes]:
        """The answer's status, and its body's beginning. Raises what the library raises."""
        import ssl  # noqa: PLC0415 (only who has a controller to ask pays for it)

        import httpx  # noqa: PLC0415 (likewise)

        headers = {"authorization": f"Bearer {self.token}"}
        with (
            httpx.Client(verify=ssl.create_default_context(), timeout=seconds, follow_redirects=False) as client,
            client.stream(method, f"{url.rstrip('/')}{path}", headers=headers) as answer,
        ):
            body = b""
            for piece in answer.iter_bytes(ANSWER_LIMIT):
                body += piece
                if len(body) > ANSWER_LIMIT:
                    break
            return answer.status_code, body

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            LOG.warning("wake-ups: %s", sentence)
        self._told = sentence

    def _over(self) -> None:
        if self._told:
            LOG.info("wake-ups: the controller answers again")
        self._told = ""


def poke(url: str, repository: str, token: str) -> None:
    """Have the controller told now that something was pushed. Takes some seconds at most, and never fails."""
    one = Wakeups(repository=repository, token=token, url=lambda: url, woke=lambda: None)
    one.poke_now(NOW_SECONDS)


def check(url: str, repository: str, token: str) -> str:
    """Why wake-ups from this address don't work; empty if they do. For `dstack doctor`."""
    one = Wakeups(repository=repository, token=token, url=lambda: url, woke=lambda: None)
    try:
        one.wait(url, 0, POKE_SECONDS)  # answered at once, whatever has changed
    except RefusedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (whatever the network makes of it)
        return f"{_place(url)} doesn't answer: {type(error).__name__}"
    return ""


def _refusal(status: int, url: str) -> RuntimeError | RefusedError:
    place = _place(url)
    if status not in _REFUSED:
        return RuntimeError(f"{place} answers {status}")
    if status in {401, 403}:
        return RefusedError(f"{place} doesn't take the token in {TOKEN}: is it the controller's?")
    return RefusedError(f"{place} knows no such repository by this token (it answers {status}): check both")


def _place(url: str) -> str:
    """Without what may be secret in it."""
    from urllib.parse import urlsplit  # noqa: PLC0415 (for messages alone)

    try:
        parts = urlsplit(url)
    except ValueError:
        return "the controller"
    return f"the controller {parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(TOKEN_LIMIT)
    except OSError as error:
        msg = f"the controller's token in {path} can't be read: {error.strerror}"
        raise Failed(msg) from error
    if mode & _OTHERS:
        msg = f"others can read the controller's token in {path}: `chmod 600 {path}`, and change the token"
        raise Failed(msg)
    return data.decode(errors="replace")
