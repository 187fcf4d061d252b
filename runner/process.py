"""The process executor: a shim per attempt, in a session of its own, that goes on when the runner is gone."""

import errno
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import runner.shim
from dstack.model.job import Reason
from runner import processes, script
from runner.executor import Exit, Launch, Signal, StartFailed
from runner.identity import COOKIE, Shim, read_exit, read_shim
from runner.nvidia import indices_of
from runner.shim.order import Order
from runner.watch import Watch

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHIM = str(Path(runner.shim.__file__ or "").with_name("__main__.py"))
MARKERS = {Signal.TERM: "stopping", Signal.KILL: "killed"}
# Beside an order, with its cookie behind it: the GPUs it gives.
GIVEN = "gpus."
KILL_SECONDS = 1.0
REMOVE_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """An attempt in hand. `pidfd` is open as long as it is known; `mine`: its shim is our child, to be reaped."""

    folder: Path
    pid: int = 0
    pidfd: int = -1
    mine: bool = False
    exit: Exit | None = None
    done: threading.Event = field(default_factory=threading.Event)


class ProcessExecutor:
    """Runs attempts as processes of the runner's user.

    `instance` is the runner's, so that another runner's attempts on this machine are left alone. Jobs get PATH, HOME
    and LANG from `surroundings` (the runner's own environment) and nothing else of it.
    """

    name = "process"
    pause = ""
    unlimited: tuple[str, ...] = ()

    def __init__(
        self, wake: Callable[[], None], *, instance: str, surroundings: Mapping[str, str] | None = None
    ) -> None:
        """`wake` is called from a thread of this executor whenever an attempt has ended."""
        self._wake, self._instance = wake, instance
        self._base = clean_environment(os.environ if surroundings is None else surroundings)
        self._attempts: dict[str, _Attempt] = {}
        self._watch = Watch()

    def start(self, launch: Launch) -> None:
        """Start the commands, once per folder. Raises StartFailed."""
        if self.adopt(launch):
            return
        order = self._order(launch)
        try:
            write_order(launch, order)
            self._begin(launch)
        except OSError as error:
            raise start_failed(error) from error

    def adopt(self, launch: Launch) -> bool:
        """Take over what runs or has ended in the attempt's folder. False where nothing was begun there."""
        if launch.key in self._attempts:
            return True
        shim = read_shim(launch.folder)
        attempt = _Attempt(folder=launch.folder)
        if shim is not None and (pidfd := shim.open()) is not None:
            attempt.pid, attempt.pidfd = shim.pid, pidfd
            self._take(launch.key, attempt)
            return True
        if shim is None and read_exit(launch.folder) is None:
            return False
        self._attempts[launch.key] = attempt
        self._conclude(attempt, shim)
        return True

    def exited(self, key: str) -> Exit | None:
        """How it ended; None while it runs. An attempt neither started nor adopted here is lost."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return Exit(exit_code=None, reason=Reason.LOST, message="nothing is known of this attempt on this runner")
        return attempt.exit if attempt.done.is_set() else None

    def signal(self, key: str, signal: Signal) -> None:
        """Signal every process below the shim; KILL again until none is left (for a second at most)."""
        attempt = self._attempts.get(key)
        if attempt is None or attempt.done.is_set():
            return
        # The shim reads these: what is left is given its grace, and what isn't started yet is signalled too.
        with suppress(OSError):
            (attempt.folder / MARKERS[signal]).touch()
        if signal is Signal.KILL:
            processes.kill_below(attempt.pid, attempt.pidfd, KILL_SECONDS)
        else:
            processes.terminate_below(attempt.pid)

    def remove(self, key: str) -> None:
        """Kill what is left of the attempt, its shim at last, and forget it."""
        attempt = self._attempts.get(key)
        if attempt is None:
            for pid in self._shims().get(key, ()):
                end_stranger(pid)
            return
        self.signal(key, Signal.KILL)
        if not attempt.done.wait(REMOVE_SECONDS):
            processes.send(attempt.pidfd, SIGKILL)
            attempt.done.wait(REMOVE_SECONDS)
        if self._attempts.pop(key, None) is not None and attempt.pidfd >= 0:
            os.close(attempt.pidfd)

    def leftovers(self) -> tuple[str, ...]:
        """Keys of this runner's attempts whose shims run."""
        return tuple(sorted(self._shims()))

    def gpus(self) -> Mapping[str, tuple[int, ...]]:
        """What the commands of this runner's shims were given."""
        folders = ((key, folder) for key, shims in self._shims().items() for folder in shims.values())
        return {key: given for key, folder in folders if (given := read_gpus(folder))}

    def close(self) -> None:
        """Stop watching; the attempts go on."""
        self._watch.close()
        for attempt in self._attempts.values():
            if attempt.pidfd >= 0:
                os.close(attempt.pidfd)
        self._attempts.clear()

    def _order(self, launch: Launch) -> Order:
        environment = {**self._base, **launch.environment}
        shell, *flags = script.shell(launch.job)
        program = shutil.which(shell, path=environment["PATH"])
        if program is None:
            msg = f"{shell} isn't installed on this runner: install it, or use another shell or an image"
            raise StartFailed(Reason.INVALID, msg)
        return Order(
            cookie=(cookie := secrets.token_hex(16)),
            grace=launch.job.stop_grace,
            folder=os.fsencode(script.start_folder(launch.tree, launch.job)),
            argv=[os.fsencode(text) for text in (program, *flags, str(launch.folder / "script"))],
            environment={
                os.fsencode(name): os.fsencode(value) for name, value in {COOKIE: cookie, **environment}.items()
            },
        )

    def _begin(self, launch: Launch) -> None:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        argv = [sys.executable, "-I", "-S", SHIM, str(launch.folder), self._instance, launch.key]
        # An interpreter of one's own may need this to start at all; the commands don't get it.
        libraries = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
        pid = os.posix_spawn(sys.executable, argv, libraries, file_actions=null, setsid=True, setsigmask=())
        self._take(launch.key, _Attempt(folder=launch.folder, pid=pid, pidfd=os.pidfd_open(pid), mine=True))

    def _take(self, key: str, attempt: _Attempt) -> None:
        self._attempts[key] = attempt
        self._watch.add(attempt.pidfd, lambda: self._ended(attempt))

    def _ended(self, attempt: _Attempt) -> None:
        """A shim has ended: the attempt with it, or it was a second one and the first goes on."""
        if attempt.mine:
            with suppress(ChildProcessError):
                os.waitpid(attempt.pid, 0)
        shim = read_shim(attempt.folder)
        if shim is not None and shim.pid != attempt.pid and (pidfd := shim.open()) is not None:
            os.close(attempt.pidfd)
            attempt.pid, attempt.pidfd, attempt.mine = shim.pid, pidfd, False
            self._watch.add(pidfd, lambda: self._ended(attempt))
            return
        self._conclude(attempt, shim)

    def _conclude(self, attempt: _Attempt, shim: Shim | None) -> None:
        attempt.exit = read_exit(attempt.folder) or lost(shim)
        attempt.done.set()
        self._wake()

    def _shims(self) -> dict[str, dict[int, Path]]:
        """The runner's shims by key, adopted or not: their process ids and folders."""
        found: dict[str, dict[int, Path]] = {}
        for pid in processes.all_processes():
            match processes.arguments(pid):
                case [_, b"-I", b"-S", path, folder, instance, key, _] if path.endswith(b"runner/shim/__main__.py"):
                    if instance == self._instance.encode():
                        found.setdefault(os.fsdecode(key), {})[pid] = Path(os.fsdecode(folder))
        return found


def clean_environment(surroundings: Mapping[str, str]) -> dict[str, str]:
    """PATH, HOME and LANG: a job gets nothing else of its runner."""
    home = surroundings.get("HOME") or str(Path("~").expanduser())
    return {
        "PATH": surroundings.get("PATH") or DEFAULT_PATH,
        "HOME": home,
        "LANG": surroundings.get("LANG") or "C.UTF-8",
    }


def lost(shim: Shim | None) -> Exit:
    """The shim is gone without a report: what its commands left behind is killed."""
    if shim is not None:
        shim.kill_leftovers(KILL_SECONDS)
    message = "the attempt's wrapper process ended without a report: it was killed, or the machine restarted"
    return Exit(exit_code=None, reason=Reason.LOST, message=message)


def write_order(launch: Launch, order: Order) -> None:
    """Write script and order. Raises StartFailed, OSError."""
    try:
        data = order.to_bytes()
    except ValueError as error:
        raise StartFailed(Reason.INVALID, str(error)) from error
    launch.folder.mkdir(parents=True, exist_ok=True)
    script.write(launch.folder / "script", launch.script, script.ON_TERM)
    # Under a name of its own: another runner, given up for dead, may be writing its order here too.
    new = launch.folder / f"order.{order.cookie}"
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    if launch.gpus:
        (launch.folder / f"{GIVEN}{order.cookie}").write_text(",".join(map(str, launch.gpus)))
    new.replace(launch.folder / "order")


def start_failed(error: OSError) -> StartFailed:
    """Why the shim could not be started."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = Reason.DISK_FULL if full else Reason.INTERNAL
    advice = "free some space on the runner" if full else "see the runner's log"
    return StartFailed(reason, f"the commands can't be started on this runner: {error}; {advice}")


def read_gpus(folder: Path) -> tuple[int, ...]:
    """The GPUs that the shim in this folder gives to its commands. The order itself is gone once it was begun."""
    shim = read_shim(folder)
    try:
        files = [folder / f"{GIVEN}{shim.cookie}"] if shim else list(folder.glob(f"{GIVEN}*"))
        return tuple(index for file in files if file.exists() for index in indices_of(file.read_text()))
    except (OSError, ValueError):
        return ()


def end_stranger(pid: int) -> None:
    """End a shim that was not adopted, and its commands."""
    with processes.held(pid) as fd:
        if fd is not None:
            processes.kill_below(pid, fd, REMOVE_SECONDS)
            processes.send(fd, SIGKILL)
