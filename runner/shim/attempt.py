"""The life of one attempt in its folder: `order` → `shim.json` (who runs it) → `output` → `exit.json`. Never twice."""

import errno
import fcntl
import os
import time

from runner.shim import kernel
from runner.shim.commands import Commands
from runner.shim.order import Order
from runner.shim.output import Output
from runner.shim.report import Report

USERS_FAULT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.E2BIG)
MOST_FILES = 1024 * 1024
FAILED, NOT_FOUND = 255 << 8, 127 << 8


def main(folder: str) -> None:
    """Carry out the order in `folder`, unless another shim did or does."""
    os.closerange(3, MOST_FILES)
    os.chdir(folder)
    if claimed():
        carry_out()
    elif os.path.exists("order"):
        os.unlink("order")  # written by a runner that came second; it contains secrets


def claimed() -> bool:
    """Whether the order is ours: the lock is held for life, and an order once begun is never begun again."""
    lock = os.open("lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait_for("shim.json")
        return False
    return not os.path.exists("shim.json") and not os.path.exists("exit.json")


def wait_for(name: str) -> None:
    """Give the shim that was first a moment to introduce itself, before the runner sees us end and looks for it."""
    deadline = time.monotonic() + 5
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.01)


def carry_out() -> None:
    """From `order` to `exit.json`."""
    with open("order", "rb") as file:
        order = Order.from_bytes(file.read())
    report, output = Report(), Output()
    introduce(order.cookie)
    os.unlink("order")  # it contains the secrets
    if early := ended_early():
        report.finish(early)
        return
    try:
        commands = Commands(order, output)
    except OSError as error:
        refuse(report, order, error)
        return
    try:
        status = commands.wait()
    except Exception as error:
        commands.kill_rest()
        report.finish(FAILED, f"the wrapper failed: {error!r}", "internal")
        raise
    finish(report, status, output.finish())


def ended_early() -> int:
    """The signal that the runner sent before there was anything to signal; 0 if none. Nothing is started then."""
    for name, number in (("killed", kernel.SIGKILL), ("stopping", kernel.SIGTERM)):
        if os.path.exists(name):
            return number
    return 0


def introduce(cookie: str) -> None:
    """Write who we are: a process id alone could be another's later."""
    text = f'{{"pid":{os.getpid()},"started":{kernel.started("self")},"boot":"{kernel.boot()}","cookie":"{cookie}"}}\n'
    with open("shim.new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename("shim.new", "shim.json")


def refuse(report: Report, order: Order, error: OSError) -> None:
    """Report that the commands never ran."""
    reason = "invalid" if error.errno in USERS_FAULT else "internal"
    what = os.fsdecode(error.filename or order.argv[0])
    report.finish(NOT_FOUND, f"the commands can't be started: {error.strerror}: {what}", reason)


def finish(report: Report, status: int, trouble: str) -> None:
    """Report how the commands ended; where they failed and output was lost, the disk is the likelier reason."""
    report.finish(status, trouble, "disk-full" if trouble and status else "")
