"""Which repository a line of the log is about, where one process serves several."""

import contextvars
import logging
import threading
from collections.abc import Callable

REPOSITORY: contextvars.ContextVar[str] = contextvars.ContextVar("repository", default="")


class Naming(logging.Filter):
    """Puts the repository's name before what is logged on its behalf. For a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True: nothing is left out."""
        if (name := REPOSITORY.get()) and not hasattr(record, "repository"):
            record.repository = name
            record.msg, record.args = f"{name}: {record.getMessage()}", ()
        return True


def begin(work: Callable[[], None], *, name: str) -> threading.Thread:
    """Do the work in a thread that keeps nobody from ending, on behalf of the same repository."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(work), name=name, daemon=True)
    thread.start()
    return thread
