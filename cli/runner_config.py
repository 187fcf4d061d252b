"""`dstack-runner config`: what this machine offers, and whose jobs it takes."""

import os
from pathlib import Path

import click
from msgspec.structs import replace

from cli.ago import size_text
from cli.terminal import say
from dstack.ledger.address import without_credentials
from dstack.ledger.remote import find_remote
from dstack.ledger.verifying import SignersFile, Verifier
from dstack.model.errors import Invalid
from dstack.model.units import parse_size
from runner.config import EXECUTORS, RunnerConfig, new_config, read_config, state_folder, write_config
from runner.trust import Trust

EXAMPLE = """\b
Examples:
  dstack-runner config --remote /srv/git/state.git --executor docker --executor process
  dstack-runner config --cpu 8 --memory 32GB --label big
  dstack-runner config --volume imagenet=/srv/imagenet
  dstack-runner config --signed --signers /etc/dstack/signers
  dstack-runner config             # only print it"""


@click.command(epilog=EXAMPLE)
@click.option("--remote", metavar="PATH|URL", help="The state remote: a URL, HOST:PATH, or a path.")
@click.option("--name", metavar="NAME", help="The runner's name; otherwise one is made up, once.")
@click.option("--label", "labels", multiple=True, metavar="TEXT", help="A label; may be given again. Replaces all.")
@click.option(
    "--executor", "executors", multiple=True, type=click.Choice(EXECUTORS), help="What it takes. Replaces all."
)
@click.option("--cpu", type=float, metavar="N", help="Cores to offer; otherwise all.")
@click.option("--memory", metavar="SIZE", help="Memory to offer, like 32GB; otherwise all.")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="N|none|auto",
    help="A GPU to offer, or 0='Tesla V100:16GB'; again for more.",
)
@click.option(
    "--keep-free", metavar="SIZE", help="Begin no job with less free disk space, like 10GB; 0B: always begin."
)
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="NAME=DIR|none",
    help="A folder that jobs may ask for by this name; again for more. Replaces all.",
)
@click.option(
    "--interruptible/--no-interruptible",
    default=None,
    help="Whether the machine can be taken away: then it gets only jobs that say `interruptible: true`.",
)
@click.option("--signed/--no-signed", default=None, help="Whether to take only runs whose every commit is signed.")
@click.option("--signers", metavar="FILE|none", help="Who may sign: OpenSSH's allowed_signers, or GPG fingerprints.")
@click.option("--revoked", metavar="FILE|none", help="Keys of SSH that count no more, or a KRL.")
@click.option("--gnupg", metavar="DIR|none", help="The GPG home with the signers' keys; otherwise your own.")
@click.option("--forks/--no-forks", default=None, help="Whether to run the code of forks, without secrets and volumes.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    state: Path | None,
    *,
    remote: str | None,
    name: str | None,
    labels: tuple[str, ...],
    executors: tuple[str, ...],
    cpu: float | None,
    memory: str | None,
    gpus: tuple[str, ...],
    keep_free: str | None,
    volumes: tuple[str, ...],
    interruptible: bool | None,
    signed: bool | None,
    signers: str | None,
    revoked: str | None,
    gnupg: str | None,
    forks: bool | None,
) -> None:
    """Set what this machine offers; without options, only print it."""
    folder = state or state_folder(os.environ)
    before = read_config(folder)
    config = before or new_config()
    given = {
        "remote": _place(remote) if remote else None,
        "name": name,
        "labels": labels or None,
        "executors": tuple(dict.fromkeys(executors)) or None,
        "cpu": cpu,
        "memory": parse_size(memory) if memory else None,
        "gpus": gpus or None,
        "keep_free": parse_size(keep_free) if keep_free else None,
        "volumes": _volumes(volumes) if volumes else None,
        "interruptible": interruptible,
        "trust": _trust(config.trust, signed, forks, {"signers": signers, "revoked": revoked, "gnupg": gnupg}),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if changes or before is None:
        config = replace(config, **changes)
        if gpus == ("auto",):
            config = replace(config, gpus=None)
        write_config(folder, config)
    _show(folder, config)


def _trust(before: Trust, signed: bool | None, forks: bool | None, places: dict[str, str | None]) -> Trust | None:  # noqa: FBT001 (as given)
    """What is demanded from now on; None where nothing was said of it. Raises Invalid where a place isn't there."""
    said = {name: value for name, value in (("signed", signed), ("forks", forks)) if value is not None}
    there = {name: None if place == "none" else _there(name, place) for name, place in places.items() if place}
    return replace(before, **said, **there) if said or there else None


def _there(option: str, place: str) -> str:
    path = Path(place).expanduser().absolute()
    if option == "gnupg" and not path.is_dir():
        msg = f"--{option} {place}: there is no folder {path}"
        raise Invalid(msg)
    if option == "signers":
        Verifier(SignersFile(path=path)).allowed()
    if option == "revoked" and not path.is_file():
        msg = f"--{option} {place}: there is no file {path}"
        raise Invalid(msg)
    return str(path)


def _volumes(texts: tuple[str, ...]) -> dict[str, str]:
    """Folders by name, wherever the daemon is started from later. Raises Invalid."""
    if texts == ("none",):
        return {}
    found: dict[str, str] = {}
    for text in texts:
        name, equals, where = text.partition("=")
        folder = Path(where).expanduser().absolute()
        if not equals or not where:
            msg = f"--volume {text}: write NAME=DIR, or none to offer no volume"
            raise Invalid(msg)
        if not folder.is_dir():
            msg = f"--volume {text}: there is no folder {folder}"
            raise Invalid(msg)
        if name in found:
            msg = f"--volume {text}: {name} stands here for {found[name]} already"
            raise Invalid(msg)
        found[name] = str(folder)
    return found


def _place(remote: str) -> str:
    """The remote, wherever the daemon is started from later. Raises Invalid where nothing is there."""
    found = find_remote(remote, Path.cwd())
    if found.objects is None:
        return remote  # with its credentials, if it has any: only the owner can read the file
    if not found.objects.is_dir():
        msg = f"there is no git repository at {found.url}: give the path of the state remote"
        raise Invalid(msg)
    return found.url


def _show(state: Path, config: RunnerConfig) -> None:
    capacity = config.capacity
    say(f"State folder: {state}")
    say(f"Name:         {config.name}")
    say(f"State remote: {without_credentials(config.remote) if config.remote else '(none: set it with --remote)'}")
    say(f"Executors:    {', '.join(config.executors)}")
    say(f"Labels:       {', '.join(config.labels) or '(none)'}")
    say(f"Offers:       {capacity.cpu:g} cpu, {size_text(capacity.memory)} memory")
    for name, folder in sorted(config.volumes.items()):
        say(f"Volume:       {name} at {folder}")
    if config.interruptible:
        say("Interruptible: gets only jobs that say so")
    if config.trust.signed:
        say(f"Takes only:   runs signed by those in {config.trust.signers}")
    if config.trust.forks:
        say("Forks:        runs their code, without secrets and volumes")
    for gpu in capacity.gpus:
        say(f"GPU {gpu.index}:        {gpu.name}, {size_text(gpu.memory)}")
