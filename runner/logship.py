"""Ships the logs of all attempts in hand: a thread for each, so that a put that hangs holds up no other log."""

import threading
from collections.abc import Callable

from runner.shipment import Shipment

TICK_SECONDS = 0.1


class LogShip:
    """The shipments by attempt. `tick` may also be called by hand."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        """`ticks`: the monotonic clock."""
        self._ticks = ticks
        self._lock = threading.Lock()
        self._shipments: dict[str, Shipment] = {}
        self._dropped: dict[str, threading.Event] = {}
        self._started = False
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to tick."""
        with self._lock:
            self._started = True
            for key in self._shipments:
                self._begin(key)

    def stop(self) -> None:
        """Tick no more. What is not sent is in the files; a put that hangs isn't waited for."""
        with self._lock:
            self._stop.set()
            for dropped in self._dropped.values():
                dropped.set()

    def add(self, key: str, make: Callable[[], Shipment]) -> Shipment:
        """The shipment of an attempt, made where it is new."""
        with self._lock:
            shipment = self._shipments.get(key)
            if shipment is None:
                shipment = self._shipments[key] = make()
                if self._started and not self._stop.is_set():
                    self._begin(key)
            return shipment

    def drop(self, key: str) -> None:
        """Forget an attempt."""
        with self._lock:
            self._shipments.pop(key, None)
            if dropped := self._dropped.pop(key, None):
                dropped.set()

    def tick(self) -> None:
        """Send what is due of every log."""
        for shipment in tuple(self._shipments.values()):
            if not self._stop.is_set():
                shipment.tick(self._ticks())

    def _begin(self, key: str) -> None:
        shipment, dropped = self._shipments[key], threading.Event()
        self._dropped[key] = dropped

        def run() -> None:
            while not shipment.ended and not dropped.wait(TICK_SECONDS):
                shipment.tick(self._ticks())

        threading.Thread(target=run, name=f"log-{key}", daemon=True).start()
