"""The face of many controllers to the network: one receiver, which knows what is served and wakes each alone."""

import hashlib
import logging
import os
import threading
from datetime import UTC, datetime

import msgspec

from cli.fleet_config import Place, Wanted
from controller.fleet import Fleet, Standing
from dstack.personal import state_folder
from webhooks import server
from webhooks.server import Receiver, Served, What

LOG = logging.getLogger(__name__)


class HttpDoor:
    """Implements `cli.fleet.Door`. Listens where the configuration says, or not at all."""

    def __init__(self, fleet: Fleet) -> None:
        """Nothing listens yet."""
        self._fleet = fleet
        self._lock = threading.Lock()
        self._address: str | None = None
        self._receiver: Receiver | None = None
        self._served: dict[str, Served] = {}

    def serve(self, wanted: Wanted) -> None:
        """See Door."""
        with self._lock:
            ids = {name: one.repository for name, one in self._served.items()}
            served = {one.entry.name: _served(one, ids.get(one.entry.name, "")) for one in wanted.places}
            before, old = self._receiver, self._address
            if wanted.http != old:
                self._receiver = self._listening(wanted.http, tuple(served.values())) if wanted.http else None
                self._address = wanted.http
            elif before:
                before.serve(tuple(served.values()))
            self._served = served
        if before and wanted.http != old:
            before.stop()

    def known(self, name: str, repository: str) -> None:
        """See Door."""
        with self._lock:
            one = self._served.get(name)
            if one is None or one.repository == repository:
                return
            self._served[name] = msgspec.structs.replace(one, repository=repository)
            if self._receiver:
                self._receiver.serve(tuple(self._served.values()))

    def changed(self, name: str) -> None:
        """See Door."""
        if receiver := self._receiver:
            receiver.changed(name)

    def stop(self) -> None:
        """See Door."""
        with self._lock:
            receiver, self._receiver, self._address = self._receiver, None, None
        if receiver:
            receiver.stop()

    def _listening(self, http: str, served: tuple[Served, ...]) -> Receiver:
        known = state_folder(os.environ) / "controller"
        known.mkdir(parents=True, exist_ok=True, mode=0o700)
        receiver = Receiver(
            http,
            served,
            lambda name, what: self._fleet.wake(name, code=what is What.CODE),
            standing=lambda: [_told(one) for one in self._fleet.summary()],
            deliveries=known / f"deliveries-{hashlib.sha256(http.encode()).hexdigest()[:12]}.json",
        )
        LOG.info("listening at %s", receiver.address)
        return receiver


def _served(place: Place, repository: str) -> Served:
    return Served(name=place.entry.name, secrets=place.secrets, tokens=place.tokens, repository=repository)


def _told(one: Standing) -> server.Standing:
    polled = None if one.polled_at is None else max(0.0, (datetime.now(UTC) - one.polled_at).total_seconds())
    return server.Standing(
        name=one.name, polled=polled, turns=one.turns, pushes=one.pushes, runs=one.runs, failures=one.failures
    )
