"""The receiver's process: its parts, composed around two descriptors of its controller's; it ends with that one."""

import asyncio
import logging
import os
import resource
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from webhooks.app import Parts, application
from webhooks.deliveries import DeliveriesFile
from webhooks.guard import GuardedProtocol
from webhooks.messages import LINE_LIMIT, Said
from webhooks.told import ToldHandler

LOG = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
END_SECONDS = 2
CONNECTIONS = 8192
DESCRIPTORS_BESIDE = 64
ORPHAN_SECONDS = 1.0
# That it starts and ends is said by its controller.
QUIET = ("uvicorn", "uvicorn.error", "asyncio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """By the controller: descriptors of the line to it and of the listening socket, and its process id."""

    line: int
    listening: int
    parent: int
    deliveries: Path | None = None


def main(arguments: list[str]) -> None:
    """`LINE LISTENING PARENT [DELIVERIES]`."""
    line, listening, parent, *more = arguments
    given = Given(
        line=int(line), listening=int(listening), parent=int(parent), deliveries=Path(more[0]) if more else None
    )
    threading.Thread(target=_end_with, args=(given.parent,), name="orphan", daemon=True).start()
    uvloop.run(_run(given))


def _end_with(parent: int) -> None:
    """Whatever the loop is at: without a controller there is nobody to receive for."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    time.sleep(END_SECONDS)
    os._exit(0)


async def _run(given: Given) -> None:
    parts = Parts()
    file = DeliveriesFile(given.deliveries) if given.deliveries else None
    handler = ToldHandler(lambda level, text: _tell(parts, level, text))
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(message)s")
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    if file:
        parts.deliveries.restore(await asyncio.to_thread(file.load))
    server = uvicorn.Server(_config(parts))
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=given.line), limit=LINE_LIMIT)
    # Nothing is answered before it is known for whom.
    await parts.link.begin(reader, writer)
    tasks = [asyncio.create_task(_end(parts, server)), *([asyncio.create_task(_keep(parts, file))] if file else [])]
    await server.serve(sockets=[socket.socket(fileno=given.listening)])
    for task in tasks:
        task.cancel()
    if file and parts.deliveries.changed:
        file.keep(parts.deliveries.snapshot())


def _config(parts: Parts) -> uvicorn.Config:
    return uvicorn.Config(
        application(parts),
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_connections(),
        timeout_graceful_shutdown=END_SECONDS,
    )


def _connections() -> int:
    """As many as there are descriptors for, once as many are asked for as may be had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + DESCRIPTORS_BESIDE
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft - DESCRIPTORS_BESIDE


async def _end(parts: Parts, server: uvicorn.Server) -> None:
    await parts.link.run()
    parts.repositories.let_go()
    server.should_exit = True


async def _keep(parts: Parts, file: DeliveriesFile) -> None:
    """Now and then, beside the requests."""
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        if parts.deliveries.changed:
            await asyncio.to_thread(file.keep, parts.deliveries.snapshot())


def _tell(parts: Parts, level: int, text: str) -> None:
    parts.link.say(Said(level=level, text=text))
