"""The systemd unit of a runner, as text. Pure (systemd.service(5), systemd.syntax(7))."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dstack.model.errors import Invalid

NAME = "dstack-runner.service"
_FOLDERS = ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
KEPT = ("PATH", "HOME", "LANG", *_FOLDERS, "DOCKER_HOST", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE")

UNIT = """\
[Unit]
Description=dstack runner
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
{environment}
Restart=on-failure
RestartSec=15
# Stopping or restarting this leaves the jobs running, and the next start takes them over.
# `dstack-runner drain` ends it when they have ended.
KillMode=process
KillSignal=SIGINT
TimeoutStopSec=60
# What runs in a job is the job's: the runner is the last to be killed for want of memory.
OOMPolicy=continue

[Install]
WantedBy={target}
"""


def unit(argv: Sequence[str], environ: Mapping[str, str], *, system: bool) -> str:
    """The unit that runs `argv`, with what it needs of the environment. Raises Invalid."""
    kept = [f"{name}={environ[name]}" for name in KEPT if environ.get(name)]
    return UNIT.format(
        command=" ".join([quoted(argv[0]), *(quoted(word).replace("$", "$$") for word in argv[1:])]),
        environment="\n".join(f"Environment={quoted(text)}" for text in kept),
        target="multi-user.target" if system else "default.target",
    )


def quoted(text: str) -> str:
    """One word, whatever is in it. Raises Invalid where it can't stand in a unit."""
    if not text.isprintable():
        msg = f"{text!r} can't stand in a systemd unit: rename it, or start the runner in another way"
        raise Invalid(msg)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def unit_folder(environ: Mapping[str, str], *, system: bool) -> Path:
    """Where units are put by hand (systemd.unit(5))."""
    if system:
        return Path("/etc/systemd/system")
    config = environ.get("XDG_CONFIG_HOME", "")
    home = Path(config) if Path(config).is_absolute() else Path(environ.get("HOME") or Path.home()) / ".config"
    return home / "systemd" / "user"
