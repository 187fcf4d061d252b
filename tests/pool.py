"""A pool as users have one: a bare remote, a work tree, and daemons as processes of their own, to be killed at will."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model.events import Assigned, Finished
from dstack.model.refs import CONTROLLER
from dstack.model.views import Viewer
from dstack.model.world import RunView
from tests.installed import search_path
from tests.repositories import bare, sh, work

PATIENCE = 40.0


@dataclass(slots=True)
class Pool:
    """`folder` holds it all. `daemons` are the running ones, by name."""

    folder: Path
    environment: Mapping[str, str]
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def code(self) -> Path:
        return self.folder / "code"

    @property
    def remote(self) -> Path:
        return self.folder / "remote.git"

    def dstack(self, *args: str, expect: int | None = 0) -> str:
        """What a command prints; standard error too where it fails unexpectedly."""
        done = subprocess.run(
            ["dstack", *args],
            cwd=self.code,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=55,
        )
        assert expect is None or done.returncode == expect, (
            args,
            done.returncode,
            done.stdout,
            done.stderr,
            self.logs(),
        )
        return done.stdout

    def json(self, *args: str) -> Any:  # noqa: ANN401 (whatever the command says)
        return json.loads(self.dstack(*args, "--json"))

    def start(self, name: str, *command: str) -> None:
        """Start a daemon; what it says goes to a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, cwd=self.code, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_controller(self, name: str = "controller") -> None:
        self.start(name, "dstack", "controller")

    def start_runner(self, name: str = "runner") -> None:
        self.start(name, "dstack-runner", "--state", str(self.folder / f"{name}-state"), "start")

    def configure_runner(self, name: str = "runner", *options: str) -> None:
        words = ["--remote", str(self.remote), "--name", name, *options]
        self.run("dstack-runner", "--state", str(self.folder / f"{name}-state"), "config", *words)

    def run(self, *words: str) -> str:
        """What a command prints that must not fail."""
        done = subprocess.run(
            words, cwd=self.code, env=self.environment, capture_output=True, check=False, text=True, errors="replace"
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def kill(self, name: str) -> None:
        """`kill -9`, of the daemon alone."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def end(self) -> None:
        """Ask all daemons to end, and make sure that they do."""
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGINT)
        for daemon in self.daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def logs(self) -> str:
        """What the daemons said last."""
        texts = [(path.name, path.read_text(errors="replace")[-3000:]) for path in self.folder.glob("*.log")]
        return "\n".join(f"--- {name}\n{text}" for name, text in texts)

    def view(self, run: str) -> RunView:
        """The run, as anybody folds it from the remote."""
        ledger = GitLedger(Cache(self.folder / "judge", str(self.remote)))
        return next(view for view in Viewer(ledger.job).views(ledger.observe()) if view.key.name == run)

    def history(self, run: str) -> dict[str, tuple[int, int]]:
        """By job: how often it was assigned, and how often finished."""
        ledger = GitLedger(Cache(self.folder / "judge", str(self.remote)))
        seen = ledger.observe()
        view = self.view(run)
        notes = seen.notes_of(view.key, CONTROLLER)
        assert notes is not None
        assert view.plan is not None
        events = {planned.id: notes.on(planned.oid).events for planned in view.plan.jobs}
        return {
            job: (sum(isinstance(e, Assigned) for e in found), sum(isinstance(e, Finished) for e in found))
            for job, found in events.items()
        }

    def eventually(self, check: Callable[[], bool], seconds: float = PATIENCE) -> None:
        end, began = time.monotonic() + seconds, time.monotonic()
        while not check():
            now = time.monotonic()
            assert now < end, f"it never became true\n{self.logs()}"
            # A check that starts processes takes them from what it waits for.
            time.sleep(max(0.05, now - began))
            began = time.monotonic()

    def status(self, run: str) -> str:
        return str(self.json("status", run)[0]["status"])


@contextmanager
def pool(folder: Path, workflows: str, **more: str) -> Iterator[Pool]:
    """A repository with these workflows, its bare remote, and no daemons yet."""
    environment = {**os.environ, "PATH": search_path(folder / "bin"), **more}
    made = Pool(folder, environment)
    bare(made.remote)
    work(made.code)
    (made.code / ".dstack" / "workflows.yaml").write_text(workflows)
    sh(made.code, "add", ".")
    sh(made.code, "commit", "--quiet", "-m", "workflows")
    sh(made.code, "remote", "add", "origin", str(made.remote))
    sh(made.code, "push", "--quiet", "origin", "main")
    made.dstack("init")
    try:
        yield made
    finally:
        made.end()
