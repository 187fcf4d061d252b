"""The receiver as a controller holds it: a process that listens, started again when it dies, and the news it brings."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dstack.model.errors import Invalid
from webhooks.address import listen, parse_address
from webhooks.child import END_SECONDS, Child
from webhooks.messages import (
    Ask,
    FromReceiver,
    Numbers,
    Said,
    Serve,
    Served,
    Standing,
    Told,
    What,
    Woke,
)

__all__ = ["Receiver", "Served", "Standing", "What"]

LOG = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
# Who lived so long has not failed at the start.
SOUND_SECONDS = 30.0
# Who has one delivery and its signature can try short secrets at leisure.
SHORT_SECRET = 16


class Receiver:
    """Listens from the moment it is made until `stop`. May be called from any thread; nothing here blocks for long."""

    def __init__(
        self,
        address: str,
        repositories: Sequence[Served],
        woke: Callable[[str, What], None],
        *,
        standing: Callable[[], Iterable[Standing]] = tuple,
        deliveries: Path | None = None,
    ) -> None:
        """`address`: `HOST:PORT`, or a port of this machine alone. `woke(name, what)` must return soon.

        `deliveries`: a file that remembers deliveries over restarts. Raises Invalid, Failed (the address is taken).
        """
        _look_at(repositories)
        self._listening, self._address = listen(parse_address(address))
        self._repositories = tuple(repositories)
        self._woke, self._standing, self._deliveries = woke, standing, deliveries
        # As time goes on, so that a number from before a restart of ours is never met again.
        self._numbers = {one.name: time.time_ns() // 1_000_000 for one in repositories}
        self._changes = threading.Condition()
        self._unsaid: dict[str, int] = {}
        self._serve_unsaid = self._asked = False
        self._child: Child | None = None
        self._stop = threading.Event()
        self._keeping = threading.Thread(target=self._keep, name="receiver", daemon=True)
        self._telling = threading.Thread(target=self._tell, name="receiver-telling", daemon=True)
        self._keeping.start()
        self._telling.start()

    @property
    def address(self) -> str:
        """`HOST:PORT` as bound: with port 0, the one the system chose."""
        return str(self._address)

    @property
    def pid(self) -> int | None:
        """The process that listens now, if one does."""
        child = self._child
        return child.process.pid if child else None

    def serve(self, repositories: Sequence[Served]) -> None:
        """Answer for these from now on: when an id became known, or a secret was rotated. Raises Invalid."""
        _look_at(repositories)
        with self._changes:
            self._repositories = tuple(repositories)
            fresh = {one.name: time.time_ns() // 1_000_000 for one in repositories if one.name not in self._numbers}
            self._numbers.update(fresh)
            self._unsaid.update(fresh)
            self._serve_unsaid = True
            self._changes.notify()

    def changed(self, name: str) -> None:
        """Tell those who wait for this repository that something changed."""
        with self._changes:
            if name in self._numbers:
                self._numbers[name] += 1
                self._unsaid[name] = self._numbers[name]
                self._changes.notify()

    def stop(self) -> None:
        """Close the door; the process has ended when this returns."""
        self._stop.set()
        with self._changes:
            self._changes.notify()
            child = self._child
        if child:
            child.hang_up()
        for thread in (self._keeping, self._telling):
            thread.join(2 * END_SECONDS)
        self._listening.close()

    def _keep(self) -> None:
        """One process after the other, until stopped."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._one()
            except Exception:
                LOG.exception("the receiver of webhooks failed")
            if time.monotonic() - began > SOUND_SECONDS:
                pause = FIRST_PAUSE
            if not self._stop.is_set():
                LOG.error("the receiver of webhooks ended; it is started again in %.1f s", pause)
                self._wake_all()  # what it had heard last may have gone with it
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _one(self) -> None:
        child = Child(self._listening, self._deliveries)
        try:
            with self._changes:
                self._child = child
                self._unsaid, self._serve_unsaid = dict(self._numbers), True
                self._changes.notify()
            if self._stop.is_set():  # it was set before there was anyone to hang up on
                child.hang_up()
            for message in child.messages():
                self._obey(message)
        finally:
            with self._changes:
                self._child = None
            child.end()

    def _obey(self, message: FromReceiver) -> None:
        match message:
            case Woke():
                self._wake(message.name, message.what)
            case Said():
                LOG.log(message.level, "%s", message.text)
            case Ask():
                with self._changes:
                    self._asked = True
                    self._changes.notify()
            case _:
                LOG.info("webhooks and wake-ups are listened for at %s", self._address)

    def _wake(self, name: str, what: What) -> None:
        try:
            self._woke(name, what)
        except Exception:
            LOG.exception("a wake-up of %s was lost", name)

    def _wake_all(self) -> None:
        for one in self._repositories:
            for what in What:
                self._wake(one.name, what)

    def _tell(self) -> None:
        """What is to be said is said here alone, so that a receiver that doesn't listen holds up nobody else."""
        while not self._stop.is_set():
            with self._changes:
                while not (
                    self._stop.is_set() or (self._child and (self._serve_unsaid or self._unsaid or self._asked))
                ):
                    self._changes.wait()
                child = self._child
                serve = Serve(repositories=self._repositories) if self._serve_unsaid else None
                numbers = Numbers(last=self._unsaid) if self._unsaid else None
                asked = self._asked
                self._serve_unsaid, self._unsaid, self._asked = False, {}, False
            if child and serve:
                child.say(serve)
            if child and numbers:
                child.say(numbers)
            if child and asked:
                child.say(Told(standings=self._standings()))

    def _standings(self) -> tuple[Standing, ...]:
        try:
            return tuple(self._standing())
        except Exception:
            LOG.exception("how the repositories are doing can't be told")
            return ()


def _look_at(repositories: Sequence[Served]) -> None:
    """Raises Invalid."""
    for one in repositories:
        try:
            "".join((*one.secrets, *one.tokens)).encode()
        except UnicodeEncodeError as error:
            msg = f"a secret or token of {one.name} is no text in UTF-8: make one of letters"
            raise Invalid(msg) from error
        if any(len(secret) < SHORT_SECRET for secret in (*one.secrets, *one.tokens)):
            LOG.warning("a secret or token of %s is shorter than %d letters: it can be guessed", one.name, SHORT_SECRET)
