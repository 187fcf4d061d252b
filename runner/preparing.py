"""The slow work before an attempt's commands run: check out the code, put the inputs in place, start."""

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dstack.model.commands import job_environment, script
from dstack.model.errors import DstackError, Unavailable
from dstack.model.job import Reason
from dstack.model.pool import Attempt
from dstack.model.refs import RunKey
from dstack.store.artifacts import DiskFull, Tree, place
from dstack.store.store import Store
from dstack.store.tally import silent
from runner import absolute, lending, nvidia, supplied
from runner.caches import Caches
from runner.cancelling import Cancel
from runner.executor import Executor, Launch, Lent, StartFailed
from runner.held import Failure, Held
from runner.script import start_folder
from runner.telling import telling
from runner.transfers import Watch, What

LOG = logging.getLogger(__name__)

OpenStore = Callable[[str], Store]


class Workspaces(Protocol):
    """The folders of attempts on this machine, by key."""

    def folder(self, key: str) -> Path:
        """Where output and records of the attempt are."""
        ...

    def tree(self, key: str) -> Path:
        """Where its checkout is; where nothing is, before there is one."""
        ...

    def check_out(self, key: str, run: RunKey, snapshot: str, include: tuple[str, ...]) -> None:
        """Give it a tree that holds exactly the snapshot, or what globs name of it. Raises StartFailed, Unavailable."""
        ...

    def remove(self, key: str) -> None:
        """Remove folder and tree. Idempotent."""
        ...

    def trim(self) -> None:
        """Remove what no attempt uses."""
        ...

    def keys(self) -> tuple[str, ...]:
        """The attempts that have left anything."""
        ...


class HeldUp(Exception):
    """It can't be done for now, because of its cause. `failure` is what it comes to if it never can."""

    def __init__(self, failure: Failure) -> None:
        """Its message is for the log, too."""
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and with what an attempt is executed. `watch`: who shows how far what takes long is.

    `volumes`: folders by the names under which they are offered.
    """

    executor: Executor
    workspaces: Workspaces
    open_store: OpenStore
    labels: Mapping[str, str]
    watch: Watch
    caches: Caches
    volumes: Mapping[str, str]

    @property
    def runner(self) -> str:
        """For messages."""
        return self.labels.get("runner", "of this machine")


def launch_of(held: Held, place_: Place, mounts: Mapping[str, Path] | None = None) -> Launch:
    """What the executor is told. `mounts`: inputs at absolute paths."""
    attempt = held.attempt
    own = {"run": attempt.run, "job": attempt.job, "attempt": str(attempt.attempt)}
    folder = place_.workspaces.folder(held.key)
    secrets = supplied.taken(folder, held.job)
    return Launch(
        key=held.key,
        job=held.job,
        script=script(held.job),
        environment={**environment_of(held), **nvidia.environment(held.job, held.gpus), **secrets},
        tree=place_.workspaces.tree(held.key),
        folder=folder,
        labels={**place_.labels, **own},
        mounts=mounts or {},
        gpus=held.gpus,
        lent=place_.caches.of(held.job),
    )


def environment_of(held: Held) -> Mapping[str, str]:
    """What the job finds in its environment."""
    attempt = held.attempt
    name = RunKey.from_text(attempt.run).name
    return job_environment(held.job, run=name, job_id=attempt.job, attempt=attempt.attempt)


def prepare(held: Held, place_: Place, cancel: Cancel) -> None:
    """Until the commands run. What runs already is adopted. Raises StartFailed, HeldUp, Cancelled."""
    try:
        if place_.workspaces.folder(held.key).exists() and place_.executor.adopt(launch_of(held, place_)):
            return
        artifacts = _place_all(held, place_, cancel)
        cancel.check()
        mounts = absolute.mounts(place_.workspaces.folder(held.key), artifacts)
        pulled = place_.watch(What.IMAGE, silent)
        launch = launch_of(held, place_, mounts)
        lent = _lend(held, place_, launch)
        place_.executor.start(replace(launch, lent=lent, check=cancel.check, progress=pulled))
    except Unavailable as error:
        raise HeldUp(Failure(reason=Reason.INTERNAL, message=f"it could not be started: {error}")) from error
    except OSError as error:
        raise StartFailed(*_of_disk(error)) from error


def _lend(held: Held, place_: Place, launch: Launch) -> tuple[Lent, ...]:
    """Behind the inputs: what these brought is not to lie beneath a link that leads elsewhere."""
    lent = (*lending.volumes(held.job, place_.volumes, place_.runner), *launch.lent)
    if lent:
        start_folder(launch.tree, held.job)
        place_.caches.make(held.job)
        lending.put(launch.tree, held.job, lent)
    return lent


def _place_all(held: Held, place_: Place, cancel: Cancel) -> tuple[str, ...]:
    """Code and inputs; the artifacts that were put in place."""
    attempt = held.attempt
    cancel.check()
    with _Step(Reason.CHECKOUT, "the code could not be checked out"):
        run = RunKey.from_text(attempt.run)
        place_.workspaces.check_out(held.key, run, attempt.snapshot, held.job.include)
    tree, artifacts = _tree(held, place_), list[str]()
    for digest, under, elsewhere in _inputs(attempt):
        cancel.check()
        where = f" from the store {elsewhere}" if elsewhere else ""
        with _Step(Reason.INPUT_MISSING, f"an input could not be put in place{where}"):
            store = place_.open_store(elsewhere or attempt.store)
            told = telling(f"input {digest[:12]} of {held.key} put in place", cancel)
            progress = place_.watch(What.INPUT, told)
            artifacts += place(store, digest, tree, under=under, progress=progress).artifacts
    return tuple(artifacts)


def _tree(held: Held, place_: Place) -> Tree:
    """Only a container has absolute paths of its own."""
    root = place_.workspaces.tree(held.key)
    if held.job.image is None or not _inputs(held.attempt):
        return Tree(root=root, working_dir=held.job.working_dir)
    inputs = absolute.inputs_in(place_.workspaces.folder(held.key))
    return Tree(root=root, working_dir=held.job.working_dir, absolute=inputs)


def _inputs(attempt: Attempt) -> list[tuple[str, str, str]]:
    """Manifests, the folders they go under, and the store they are in, where it isn't the attempt's own.

    What an earlier attempt saved comes last, over the inputs.
    """
    inputs = [(one.manifest, one.under, one.store) for one in attempt.inputs]
    return [*inputs, (attempt.restore, "", "")] if attempt.restore else inputs


class _Step:
    """Turns what goes wrong in a step into its reason."""

    def __init__(self, reason: Reason, what: str) -> None:
        self._reason = reason
        self._what = what

    def __enter__(self) -> None:
        """Nothing to do before."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, StartFailed):
            return
        if isinstance(error, Unavailable):
            raise HeldUp(Failure(reason=self._reason, message=f"{self._what}: {error}")) from error
        if isinstance(error, DiskFull):
            raise StartFailed(Reason.DISK_FULL, str(error)) from error
        if isinstance(error, DstackError):
            raise StartFailed(self._reason, f"{self._what}: {error}") from error


def _of_disk(error: OSError) -> tuple[Reason, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reason.DISK_FULL, "the disk of this runner is full; free space there"
    LOG.error("an attempt could not be prepared", exc_info=error)
    return Reason.INTERNAL, f"the attempt could not be prepared: {error}; the log of the runner says more"
