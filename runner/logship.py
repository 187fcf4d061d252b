"""Ships the logs of all attempts in hand: a thread that looks at their output a few times a second."""

import threading
from collections.abc import Callable

from runner.shipment import Shipment

TICK_SECONDS = 0.2


class LogShip:
    """The shipments by attempt. `tick` may also be called by hand."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        """`ticks`: the monotonic clock."""
        self._ticks = ticks
        self._shipments: dict[str, Shipment] = {}
        self._stop = threading.Event()
        self._some = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logship", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Tick no more. What is not sent is in the files; a put that hangs isn't waited for."""
        self._stop.set()
        self._some.set()

    def add(self, key: str, make: Callable[[], Shipment]) -> Shipment:
        """The shipment of an attempt, made where it is new."""
        shipment = self._shipments.get(key)
        if shipment is None:
            shipment = self._shipments[key] = make()
            self._some.set()
        return shipment

    def drop(self, key: str) -> None:
        """Forget an attempt."""
        self._shipments.pop(key, None)

    def tick(self) -> None:
        """Send what is due of every log."""
        for shipment in tuple(self._shipments.values()):
            if not self._stop.is_set():
                shipment.tick(self._ticks())

    def _run(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self._some.clear()
            while self._shipments and not self._stop.wait(TICK_SECONDS):
                self.tick()
