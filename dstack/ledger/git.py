"""The `git` command: the one place that starts it, with an environment of our own, a time limit, and no hooks."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dstack.ledger.access import configured, is_reaching, pairs_of
from dstack.model.errors import Failed, Unavailable

OLDEST = (2, 34)
TIMEOUT = 120.0

# Of the user's GIT_* variables only those live on that say how to reach a remote, where git and its settings are, and
# who the user is. Everything else can point a command at another repository, index or configuration.
_KEPT = frozenset(
    {
        "GIT_ASKPASS",
        "GIT_ALLOW_PROTOCOL",
        "GIT_AUTHOR_EMAIL",
        "GIT_AUTHOR_NAME",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_SYSTEM",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
        "GIT_EXEC_PATH",
        "GIT_PROTOCOL_FROM_USER",
        "GIT_PROXY_COMMAND",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
    }
)
_KEPT_PREFIXES = ("GIT_HTTP_", "GIT_SSL_", "GIT_LFS_")

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "push.followTags=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "submodule.recurse=false",
    "advice.detachedHead=false",
    "core.alternateRefsCommand=true",  # what we borrow from has everything anyway: don't list its refs
)
_COMMAND = ("git", *(part for setting in _SETTINGS for part in ("-c", setting)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where and how a command runs. `timeout` in seconds; `prompt` lets git ask the user at the terminal."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT
    prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command left behind."""

    status: int
    out: bytes
    err: bytes

    @property
    def reason(self) -> str:
        """The line of stderr that says most."""
        return useful_line(self.err)


class Running:
    """A started git command; leave the `with` block and nothing of it runs any more."""

    def __init__(self, context: Context, args: Sequence[str], stdin: bytes | None) -> None:
        """Start it. Raises Failed where git is missing or the folder is gone."""
        self._args, self._context, self._stdin = args, context, stdin
        self._process = _start(context, args, piped=stdin is not None)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs, and let go of its pipes."""
        if self._process.poll() is None:
            self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def result(self) -> Result:
        """Wait for the end. Raises Unavailable after the time limit."""
        try:
            out, err = self._process.communicate(self._stdin, timeout=self._context.timeout)
        except subprocess.TimeoutExpired as error:
            self._kill()
            msg = f"git {self._args[0]} took longer than {self._context.timeout:g} seconds and was ended"
            raise Unavailable(msg, away=True) from error
        except BaseException:
            self._kill()
            raise
        return Result(status=self._process.returncode, out=out, err=err)

    def _kill(self) -> None:
        """TERM first: git then removes its lock files and half-written packs."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                self._send(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=2)
                return

    def _send(self, number: signal.Signals) -> None:
        if self._context.prompt:
            self._process.send_signal(number)
        else:
            os.killpg(self._process.pid, number)


def start(context: Context, *args: str, stdin: bytes | None = None) -> Running:
    """Begin a git command. Use it in a `with` block and wait for its end by `result`."""
    return Running(context, args, stdin)


def run(context: Context, *args: str, stdin: bytes | None = None) -> Result:
    """Run a git command to its end, whatever its exit code. Raises Failed without git, Unavailable past its time."""
    with start(context, *args, stdin=stdin) as running:
        return running.result()


def output(context: Context, *args: str, stdin: bytes | None = None) -> bytes:
    """What a git command prints. Raises Failed with git's own words where it fails."""
    return checked(run(context, *args, stdin=stdin), args[0])


def checked(result: Result, what: str) -> bytes:
    """The output of a command that must not fail. Raises Failed with git's own words."""
    if result.status != 0:
        msg = f"git {what} failed: {result.reason or f'exit code {result.status}'}"
        raise Failed(msg)
    return result.out


def useful_line(err: bytes) -> str:
    """The line of git's stderr to show a user: the first fatal one, else an error, else the last line."""
    lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    for start_of_line in ("fatal: ", "error: ", "remote: fatal: ", "remote: error: "):
        for line in lines:
            if line.startswith(start_of_line):
                return line.removeprefix(start_of_line)
    return lines[-1] if lines else ""


def check_version(context: Context) -> None:
    """Raises Failed where git is missing or older than 2.34."""
    text = output(context, "version").decode(errors="replace")
    digits = text.removeprefix("git version ").split(".")
    if len(digits) > 1 and digits[0].isdecimal() and digits[1].isdecimal():
        version = (int(digits[0]), int(digits[1]))
        if version < OLDEST:
            msg = f"dstack needs git 2.34 or newer, and finds {text.strip()!r}: install a newer git"
            raise Failed(msg)


def environment(inherited: Mapping[str, str], own: Mapping[str, str], *, prompt: bool) -> dict[str, str]:
    """The environment of a child git: `inherited` without what could misdirect it, then ours, then `own`."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("GIT_") or _is_kept(name)}
    kept |= {"LC_ALL": "C", "LANGUAGE": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_DEFAULT_REF_FORMAT": "files"}
    if not prompt:
        kept |= {"GIT_TERMINAL_PROMPT": "0", "GCM_INTERACTIVE": "never"}
        kept.setdefault("SSH_ASKPASS_REQUIRE", "never")
    reaching = [pair for pair in pairs_of(inherited) if is_reaching(pair[0])]
    return kept | dict(own) | configured((*reaching, *pairs_of(own)))


def _is_kept(name: str) -> bool:
    return name in _KEPT or name.startswith(_KEPT_PREFIXES)


def _start(context: Context, args: Sequence[str], *, piped: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*_COMMAND, *args],
            cwd=context.folder,
            env=environment(os.environ, context.environment, prompt=context.prompt),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Of a session without a terminal: neither git nor ssh can ask there, and an interrupt is ours alone.
            start_new_session=not context.prompt,
        )
    except FileNotFoundError as error:
        raise _missing(context.folder) from error
    except OSError as error:
        msg = f"git can't be started in {context.folder}: {error.strerror}"
        raise Failed(msg) from error


def _missing(folder: Path) -> Failed:
    if not folder.is_dir():
        return Failed(f"there is no folder {folder}")
    install = "xcode-select --install" if sys.platform == "darwin" else "apt-get install git"
    return Failed(f"dstack needs the git command, which is not on the PATH: install it ({install})")
