"""The receiver's line to its controller: wake-ups out, gathered; what it serves, and news for those who wait, in."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from webhooks.gather import Gather
from webhooks.messages import (
    Ask,
    FromReceiver,
    Numbers,
    Ready,
    Serve,
    Standing,
    Told,
    What,
    Woke,
    line,
    to_receiver,
)
from webhooks.repositories import Repositories

LOG = logging.getLogger(__name__)

ASK_SECONDS = 5.0
# A controller that says nothing for so long doesn't hear wake-ups either.
DEAF_SECONDS = 30.0
UNREAD_LIMIT = 256 * 1024


class Link:
    """Talks with the controller until it hangs up. `woken` is told of each wake-up that goes out."""

    def __init__(self, repositories: Repositories, woken: Callable[[str, What], None]) -> None:
        """Not connected yet."""
        self.standings: tuple[Standing, ...] = ()
        self._repositories, self._woken = repositories, woken
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._gather: Gather[tuple[str, What]] = Gather()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = time.monotonic()
        self._answers: asyncio.Future[None] | None = None

    @property
    def deaf(self) -> bool:
        """Whether the controller has been silent for too long."""
        return time.monotonic() - self._heard > DEAF_SECONDS

    def wake(self, name: str, what: What) -> None:
        """Something may have changed."""
        self._gather.add((name, what))
        if self._timer is None:
            self._send_due()

    def say(self, message: FromReceiver) -> bool:
        """Send a line; False where too much is unread already, and it is dropped."""
        if self._writer is None or self._writer.transport.get_write_buffer_size() > UNREAD_LIMIT:
            return False
        self._writer.write(line(message))
        return True

    async def ask(self, seconds: float) -> bool:
        """Have `standings` made new; whether an answer came within this time. Who asks meanwhile shares it."""
        if self._answers is None:
            self._answers = asyncio.get_running_loop().create_future()
            self.say(Ask())
        try:
            await asyncio.wait_for(asyncio.shield(self._answers), seconds)
        except TimeoutError:
            return False
        return True

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take up the line, and wait for the controller's first word: what is served."""
        self._reader, self._writer = reader, writer
        self._heard = time.monotonic()
        self._obey(await reader.readline())
        self.say(Ready())

    async def run(self) -> None:
        """Until the controller hangs up."""
        asking = asyncio.create_task(self._keep_asking())
        try:
            while self._reader and (text := await self._reader.readline()):
                self._heard = time.monotonic()
                self._obey(text)
        except (ConnectionError, ValueError) as error:  # a line longer than any of ours is a ValueError
            LOG.debug("the line to the controller broke: %s", error)
        finally:
            asking.cancel()

    async def _keep_asking(self) -> None:
        while True:
            await self.ask(ASK_SECONDS)
            await asyncio.sleep(ASK_SECONDS)
            if self._answers is not None:  # the question may have been dropped
                self.say(Ask())

    def _obey(self, text: bytes) -> None:
        try:
            message = to_receiver(text)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            LOG.warning("the controller said what can't be read")
            return
        match message:
            case Serve():
                self._repositories.serve(message.repositories)
            case Numbers():
                self._repositories.changed(message.last)
            case Told():
                self.standings = message.standings
                if self._answers is not None and not self._answers.done():
                    self._answers.set_result(None)
                self._answers = None

    def _send_due(self) -> None:
        loop = asyncio.get_running_loop()
        for key in self._gather.due(loop.time()):
            name, what = key
            if self.say(Woke(name=name, what=what)):
                self._woken(name, what)
            else:
                self._gather.add(key)
        at = self._gather.next_at()
        self._timer = None if at is None else loop.call_at(at, self._send_due)
