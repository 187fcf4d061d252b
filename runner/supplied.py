"""The secrets of one attempt: taken when it begins, kept in its folder for its owner alone, removed with it."""

import os
import secrets as random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import DstackError
from dstack.model.job import Job, Reason
from runner.executor import StartFailed
from runner.masking import LEAST, needles
from runner.secretfile import read_secrets

FILE = "secrets"
_LIMIT = 64 * 1024 * 1024


class _Taken(Value, frozen=True, kw_only=True):
    values: dict[str, str] = {}


def nothing() -> Mapping[str, str]:
    """A machine that keeps no secrets."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Where a runner has secrets from: what `known` gives (it is asked for each attempt), and of `lent` what is named.

    `lent`: the environment of a user who runs the job beside him. `runner` is for messages.
    """

    runner: str = "this runner"
    known: Callable[[], Mapping[str, str]] = nothing
    lent: Mapping[str, str] = field(default_factory=dict)


def supply_of(runner: str, folder: Path, lent: Mapping[str, str] | None) -> Supply:
    """By the secrets file in a runner's state folder, read anew each time."""
    return Supply(runner=runner, known=lambda: read_secrets(folder), lent=lent or {})


def take(folder: Path, job: Job, supply: Supply) -> tuple[str, ...]:
    """Keep what the job needs in the attempt's folder, once; what is to be said of it. Raises StartFailed, OSError."""
    if not job.secrets or (folder / FILE).exists():
        return ()
    values = _values(job, supply)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = folder / f"{FILE}.{random.token_hex(4)}"
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
        file.write(encode(_Taken(values=values)))
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / FILE)
    short = [name for name, value in values.items() if not needles([value])]
    return tuple(
        f"the secret {name} is shorter than {LEAST} characters: it is not hidden in this log" for name in short
    )


def taken(folder: Path, job: Job) -> Mapping[str, str]:
    """What the attempt was given; nothing before that. Raises Invalid, OSError."""
    if not job.secrets:
        return {}
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return {}
    return decode(data, _Taken, f"the secrets in {folder}", limit=_LIMIT).values


def _values(job: Job, supply: Supply) -> dict[str, str]:
    """What is lent comes before what is kept: it is nearer to who asks."""
    found = {name: value for name in job.secrets if (value := supply.lent.get(name))}
    wanted = [name for name in job.secrets if name not in found]
    if not wanted:
        return found
    try:
        known = supply.known()
    except DstackError as error:
        raise StartFailed(
            Reason.REJECTED, f"the secrets of the runner {supply.runner} can't be used: {error}"
        ) from error
    if missing := [name for name in wanted if name not in known]:
        raise StartFailed(Reason.REJECTED, _missing(missing, supply))
    return {**found, **{name: known[name] for name in wanted}}


def _missing(names: list[str], supply: Supply) -> str:
    many = len(names) > 1
    how = " and ".join(f"`dstack-runner secret set {name}`" for name in names)
    here = f", or set {'them' if many else 'it'} where `dstack` is started" if supply.lent else ""
    what = f"secret{'s' if many else ''} {', '.join(names)}"
    return f"the runner {supply.runner} has no {what}: say {how} on its machine{here}, and run the job again"
