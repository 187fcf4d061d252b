"""A runner within this process, for `dstack up` and `--local`."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from cli.docker_ping import docker_answers
from cli.session import Seen, Session
from dstack.ledger.gitledger import GitLedger
from dstack.model import refs
from dstack.model.errors import DstackError
from dstack.model.observation import DeleteRef
from dstack.model.settings import Settings
from dstack.store.heartbeats import delete_runner
from runner.config import read_config, state_folder
from runner.journal import instance_of
from runner.machine import detected
from runner.main import RunnerDaemon
from runner.parts import RunnerParts
from runner.trust import Trust


def runner_here(session: Session, seen: Seen, name: str, folder: Path, *, private: bool = False) -> RunnerParts:
    """What makes a runner that takes processes, and containers where a Docker engine answers. `folder` keeps its state.

    It has the secrets and volumes that `dstack-runner` keeps for this user, and secrets from his environment.
    """
    kept = state_folder(os.environ)
    config = read_config(kept)
    return RunnerParts(
        folder=folder,
        remote=session.remote,
        name=name,
        capacity=detected(),
        executors=("process", "docker") if docker_answers() else ("process",),
        store=seen.store_url,
        private=private,
        volumes=config.volumes if config else {},
        trust=_trust(config.trust if config else Trust(), seen.settings),
        secrets=kept,
        caches=session.place / "caches",
        lent=os.environ,
    )


def _trust(own: Trust, settings: Settings) -> Trust:
    """What the runner of this machine demands, and the user's own settings."""
    signers = own.signers or (settings.signers and str(Path(settings.signers).expanduser().absolute()))
    return msgspec.structs.replace(own, signed=own.signed or settings.signed, signers=signers)


def runner_daemon(session: Session, seen: Seen, name: str, folder: Path, *, private: bool = False) -> RunnerDaemon:
    """That runner itself. `folder` keeps its state."""
    return RunnerDaemon(runner_here(session, seen, name, folder, private=private))


def forget_runner(session: Session, seen: Seen, name: str, folder: Path) -> None:
    """Leave nothing of a private runner that has ended. What can't be removed now is litter, and no harm."""
    with suppress(DstackError):
        ledger = GitLedger(session.cache)
        found = ledger.observe()
        changes = [DeleteRef(ref=ref) for ref in (refs.runner(name), refs.assignment(name)) if ref in found.refs]
        ledger.commit(changes, found, atomic=False)
        delete_runner(seen.store(), name, instance_of(folder))
