"""Tells runners that somebody follows a run, for as long as that lasts: its logs then come at once."""

import logging
import threading

from dstack.model.errors import DstackError, Failed, Invalid
from dstack.model.refs import RunKey
from dstack.store import watched
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

# In its first minute a log comes at once anyway: a run that ends before that needs no sign.
NEW_SECONDS = 30.0
PARTING_SECONDS = 1.0


class Attention:
    """The sign of one who follows a run, renewed by a thread. Without the right to write it he follows all the same."""

    def __init__(self, run: RunKey, *, after: float = 0.0) -> None:
        """`after`: seconds to wait before the first sign."""
        self._run, self._after = str(run), after
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._over = False
        self._told = False

    def show(self, store: Store) -> None:
        """From now on, in this store. Only the first call counts."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, args=(store,), name="attention", daemon=True)
            self._thread.start()

    def end(self, *, over: bool) -> None:
        """No more. `over`: the run has ended, the sign is removed. A store that hangs isn't waited for."""
        self._over = over
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PARTING_SECONDS)

    def _keep(self, store: Store) -> None:
        if self._stop.wait(self._after):
            return
        while self._renewed(store) and not self._stop.wait(watched.RENEW_SECONDS):
            pass
        if self._over:
            self._remove(store)

    def _renewed(self, store: Store) -> bool:
        """Whether to go on: who may not write isn't let in by asking again."""
        try:
            watched.renew(store, self._run)
        except DstackError as error:
            self._tell(error)
            return not isinstance(error, Failed | Invalid)
        return True

    def _remove(self, store: Store) -> None:
        try:
            watched.remove(store, self._run)
        except DstackError as error:
            self._tell(error)

    def _tell(self, error: DstackError) -> None:
        if not self._told:
            LOG.debug("runners are not told that somebody follows %s: %s", self._run, error)
        self._told = True
