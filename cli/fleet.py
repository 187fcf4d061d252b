"""`dstack controller` for many repositories: composes a fleet, the door to the network, and what re-reads the file."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from apscheduler.schedulers.background import BackgroundScheduler

from cli.daemons import Shared, controller_daemon
from cli.fleet_config import Place, Source, Wanted
from cli.remote_session import open_remote
from controller.fleet import LONGEST_SECONDS, Fleet, Repository
from controller.main import ControllerDaemon
from controller.trouble import Trouble
from dstack import interrupts
from dstack.model.bucket import POLL_SECONDS, Reach
from dstack.model.errors import DstackError
from dstack.store.location import open_store

LOG = logging.getLogger(__name__)

# So often it is looked whether a file has changed.
LOOK_SECONDS = 2.0
END_SECONDS = 5.0
# Of all remotes elsewhere together, unless the file says how often each is looked at: a look starts a process.
POLLS_PER_SECOND = 10.0
# A watch wakes 200 times a second, and Linux gives a user 128 (inotify(7)): with more, all are only polled.
MOST_WATCHED = 16


class Door(Protocol):
    """The controller's face to the network, for what is served now."""

    def serve(self, wanted: Wanted) -> None:
        """Answer for these. Raises DstackError where it can't listen."""
        ...

    def known(self, name: str, repository: str) -> None:
        """The repository has this id."""
        ...

    def changed(self, name: str) -> None:
        """Something was pushed."""
        ...

    def stop(self) -> None:
        """Answer no more."""
        ...


class NoDoor:
    """Nobody listens."""

    def serve(self, wanted: Wanted) -> None:
        """See Door."""

    def known(self, name: str, repository: str) -> None:
        """See Door."""

    def changed(self, name: str) -> None:
        """See Door."""

    def stop(self) -> None:
        """See Door."""


class Service:
    """A fleet that follows what its source says. `run` blocks; the rest may be called from any thread."""

    def __init__(self, source: Source, fleet: Fleet, door: Door | None = None) -> None:
        """Nothing is read yet."""
        self._source, self._fleet, self._door = source, fleet, door or NoDoor()
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._trouble = Trouble()
        self._marks: object = None

    def begin(self) -> None:
        """Serve what the source says now. Raises Invalid, Failed."""
        self._marks = self._source.marks()
        self._serve(self._source.read())
        self._marks = self._source.marks()

    def run(self) -> tuple[str, ...]:
        """Until stopped. The names of those that did not end in time."""
        watcher = threading.Thread(target=self._watch, name="configuration", daemon=True)
        watcher.start()
        interrupts.wait(self._ended)
        watcher.join(END_SECONDS)
        self._door.stop()
        return self._fleet.run()

    def reload(self) -> None:
        """Read the source again, and try at once what has failed."""
        self._asked.set()

    def stop(self) -> None:
        """Have `run` end."""
        self._ended.set()
        self._asked.set()
        self._fleet.stop()

    def _serve(self, wanted: Wanted) -> None:
        self._door.serve(wanted)
        self._fleet.serve(repositories(wanted.places, self._door))

    def _watch(self) -> None:
        while not self._ended.is_set():
            asked = self._asked.wait(LOOK_SECONDS)
            self._asked.clear()
            marks = self._source.marks()
            if self._ended.is_set() or not (asked or marks != self._marks):
                continue
            self._marks = marks
            self._again()
            if asked:
                self._fleet.retry()

    def _again(self) -> None:
        """What can't be read changes nothing."""
        try:
            self._serve(self._source.read())
        except DstackError as error:
            self._trouble.tell("source", f"what was served before is served on: {error}", level=logging.ERROR)
        except Exception:
            LOG.exception("what was served before is served on: a mistake of ours")
        else:
            self._trouble.over("source", "the configuration can be read again")
            LOG.info("the configuration was read: %d repositories", len(self._fleet.summary()))


def repositories(places: Sequence[Place], door: Door) -> tuple[Repository, ...]:
    """What a fleet is told to serve."""
    away = sum(1 for place in places if place.remote.path is None)
    watch = len(places) - away <= MOST_WATCHED
    return tuple(_repository(_paced(place, away), door, watch=watch) for place in places)


def _paced(place: Place, away: int) -> Place:
    """With how often it is looked at: the more there are, the more rarely."""
    if place.entry.poll is not None:
        return place
    usual = POLL_SECONDS[place.remote.reach]
    poll = usual if place.remote.reach is Reach.LOCAL else max(usual, away / POLLS_PER_SECOND)
    return replace(place, entry=replace(place.entry, poll=poll))


def _repository(place: Place, door: Door, *, watch: bool) -> Repository:
    name = place.entry.name

    def opened(timers: BackgroundScheduler) -> ControllerDaemon | None:
        session = open_remote(place.remote, place.code)
        seen = session.poll()
        if seen.repository is None:
            return None
        if seen.settings.store is None:
            open_store(seen.store_url, seen.repository, create=True)
        door.known(name, seen.repository)
        shared = Shared(timers=timers, longest=LONGEST_SECONDS, watch=watch)
        daemon = controller_daemon(session, seen, poll=place.entry.poll, shared=shared)
        daemon.show(lambda: door.changed(name))
        return daemon

    terms = (place.entry, place.remote.url, place.code.url, watch)
    return Repository(name=name, url=place.remote.url, terms=terms, open=opened)
