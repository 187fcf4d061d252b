"""The Docker executor: a container per attempt, whose name is the attempt's lock, and which outlives the runner."""

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from dstack.model.errors import Failed, Unavailable
from dstack.model.job import Reason
from runner import handover, image, limit_probe, limits, pulling, recipe, script
from runner.concluding import concluded
from runner.engine import Engine
from runner.engine_values import Container, Refused, State
from runner.engine_watch import EngineWatch
from runner.executor import OUTPUT, Exit, Launch, Signal, StartFailed
from runner.following import Following
from runner.giving_back import give_back_left
from runner.shipment import say
from runner.streams import Stream
from runner.terminating import terminate
from runner.unpack import unpack


class DockerExecutor:
    """Runs attempts in containers of one engine. `instance` is the runner's: it marks what is ours."""

    name = "docker"

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        instance: str,
        base_url: str | None = None,
        pauses: Sequence[float] = pulling.PAUSES,
    ) -> None:
        """`base_url` None means the engine the `docker` command would use. Nothing is asked of it yet. Raises Failed.

        `pauses` (seconds) lie between the tries to pull an image.
        """
        self._wake, self._instance = wake, instance
        self._engine = Engine(base_url)
        self._pulls = pulling.Pulls(self._engine, pauses)
        self._followed: dict[str, Following] = {}
        self._starting: dict[str, Signal | None] = {}
        self._watch: EngineWatch | None = None

    def watch(self, beside: Path, keep: int | None) -> None:
        """Look after the engine from now on, see `runner.engine_watch`. Raises Failed where waiting for it is vain."""
        self._watch = EngineWatch(self._engine, self._unlimited, self._wake, beside=beside, keep=keep)
        self._watch.begin()

    @property
    def pause(self) -> str:
        """Why no container is begun now."""
        return self._watch.pause if self._watch else ""

    @property
    def unlimited(self) -> tuple[str, ...]:
        """Limits without effect."""
        return self._watch.unlimited if self._watch else ()

    def gpus(self) -> Mapping[str, tuple[int, ...]]:
        """What this runner's running containers were given. Raises Unavailable."""
        found = self._engine.labelled(f"{recipe.INSTANCE}={self._instance}", running=True)
        return {
            labels[recipe.KEY]: gpus for labels in found if recipe.KEY in labels and (gpus := recipe.gpus_of(labels))
        }

    def start(self, launch: Launch) -> None:
        """Pull the image if it is to be, create the container and start it. Raises StartFailed, Unavailable."""
        if launch.key in self._followed:
            return
        self._starting[launch.key] = None
        try:
            self._start(launch)
        except Refused as refused:
            raise recipe.refusal(launch.job, refused) from refused
        except Failed as error:
            raise StartFailed(Reason.INTERNAL, str(error)) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            msg = f"the attempt's folder on the runner can't be written: {error}"
            raise StartFailed(Reason.DISK_FULL if full else Reason.INTERNAL, msg) from error
        finally:
            asked = self._starting.pop(launch.key, None)
        if asked is not None:
            self.signal(launch.key, asked)

    def adopt(self, launch: Launch) -> bool:
        """Take over the attempt's container. One that was never started is removed. Raises Unavailable, Failed."""
        if launch.key in self._followed:
            return True
        name = self._name(launch.key)
        state = self._engine.state(name)
        if state is None:
            return False
        if state.labels.get(recipe.KEY) != launch.key:
            msg = f"the name {name} is taken by a container that isn't dstack's: rename or remove it"
            raise Failed(msg)
        if state.status == "created":
            self._engine.remove(name)
            return False
        self._follow(launch, name, None)
        return True

    def exited(self, key: str) -> Exit | None:
        """How it ended; None while it runs. An attempt neither started nor adopted here is lost."""
        following = self._followed.get(key)
        if following is None:
            return Exit(exit_code=None, reason=Reason.LOST, message="nothing is known of this attempt on this runner")
        return following.exit

    def signal(self, key: str, signal: Signal) -> None:
        """Signal every process in the container; one whose start is under way won't be started. Raises Unavailable."""
        if key in self._starting:
            self._starting[key] = signal
        following = self._followed.get(key)
        if following is None or following.exit is not None:
            return
        if signal is Signal.KILL:
            self._engine.kill(following.name, "SIGKILL")
        else:
            terminate(self._engine, following.name)

    def remove(self, key: str) -> None:
        """Remove the container, running or not. Raises Unavailable."""
        following = self._followed.pop(key, None)
        if following is not None:
            following.close()
        name = self._name(key)
        if os.geteuid() != 0:
            if following is None or following.exit is None:
                give_back_left(self._engine, name)
            self._engine.remove(recipe.owner_name(name))
        self._engine.remove(name)

    def leftovers(self) -> tuple[str, ...]:
        """Keys of this runner's attempts that have a container. Raises Unavailable."""
        found = self._engine.labelled(f"{recipe.INSTANCE}={self._instance}")
        return tuple(sorted({labels[recipe.KEY] for labels in found if recipe.KEY in labels}))

    def close(self) -> None:
        """Stop following; the containers go on."""
        if self._watch is not None:
            self._watch.close()
        for following in self._followed.values():
            following.close()
        self._followed.clear()
        self._engine.close()

    def export(self, key: str, path: str, target: Path) -> bool:
        """Copy what stands at the absolute `path` in the container to `target`, which must not exist.

        To be called before `remove`. False where nothing stands there. Raises Invalid, Unavailable, OSError.
        """
        with self._engine.archive(self._name(key), path) as archive:
            if archive is None:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            unpack(archive, target)
        return True

    def _start(self, launch: Launch) -> None:
        script.start_folder(launch.tree, launch.job)
        found = image.ready(self._engine, self._pulls, launch, lambda text: tell(launch, text))
        if not handover.is_root(found.user):
            caches = [one.here for one in launch.lent if one.ours]
            for shared in (launch.tree, *launch.mounts.values(), *caches):
                handover.open_to_all(shared)
        launch.folder.mkdir(parents=True, exist_ok=True)
        script.write(launch.folder / "script", launch.script, script.ON_TERM_IN_CONTAINER)
        self._heed(launch.key)
        if warning := limits.unheeded(launch.job.resources, self.unlimited):
            tell(launch, warning)
        made = recipe.container(launch, self._name(launch.key), found.id, self._instance)
        try:
            self._engine.create(made)
        except Refused as refused:
            if refused.status != HTTPStatus.CONFLICT:
                raise
            if self.adopt(launch):
                return
            self._engine.create(made)
        self._begin(launch, made)

    def _begin(self, launch: Launch, made: Container) -> None:
        stream = None
        try:
            stream = self._engine.attach(made.name)
            self._engine.start(made.name)
            self._follow(launch, made.name, stream)
        except BaseException:
            if stream is not None:
                stream.close()
            with suppress(Unavailable, Refused):
                self._engine.remove(made.name)
            raise

    def _unlimited(self) -> tuple[str, ...]:
        return limit_probe.without_effect(self._engine, self._instance)

    def _heed(self, key: str) -> None:
        """An image can take long: who was told to end meanwhile isn't started any more."""
        asked = self._starting.get(key)
        if asked is not None:
            reason = Reason.ABORTED if asked is Signal.KILL else Reason.STOPPED
            raise StartFailed(reason, "it was stopped before it was started")

    def _follow(self, launch: Launch, name: str, stream: Stream | None) -> None:
        following = Following(self._engine, launch, name, self._concluded)
        following.begin(stream, self._wake)
        self._followed[launch.key] = following

    def _concluded(self, following: Following, state: State) -> Exit:
        return concluded(self._engine, following, state, self.unlimited)

    def _name(self, key: str) -> str:
        return f"dstack-{self._instance}-{key}"


def tell(launch: Launch, text: str) -> None:
    """Say something in the log of an attempt whose commands have not started."""
    say(launch.folder / OUTPUT, text, time.time())
