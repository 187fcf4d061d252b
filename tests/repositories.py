"""Real repositories for the tests of the ledger, and short ways to look into them."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dstack.ledger.cache import Cache
from dstack.ledger.code import CodeRepository, find_code
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.snapshot import Snapshot, take_snapshot
from dstack.ledger.submit import Submitted, submit
from dstack.ledger.worktree import Choice
from dstack.model.observation import Observation, RunRecord
from dstack.model.runspec import Code, RunSpec

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WORKFLOWS = "workflows:\n- name: hello\n  commands: [echo hello]\n"


def sh(folder: Path, *args: str, stdin: bytes | None = None) -> str:
    """What a git command prints; it must not fail."""
    done = subprocess.run(["git", *args], cwd=folder, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout.decode(errors="surrogateescape").strip()


def bare(path: Path) -> Path:
    """A new bare repository."""
    path.mkdir(parents=True)
    sh(path, "init", "--quiet", "--bare", "--initial-branch=main")
    return path


def work(path: Path) -> Path:
    """A work tree with one commit that has a workflows file."""
    (path / ".dstack").mkdir(parents=True)
    (path / ".dstack/workflows.yaml").write_text(WORKFLOWS)
    (path / "train.py").write_text("print('hello')\n")
    sh(path, "init", "--quiet", "--initial-branch=main")
    sh(path, "config", "user.name", "Ada Tester")
    sh(path, "config", "user.email", "ada@example.org")
    sh(path, "add", "--all")
    sh(path, "commit", "--quiet", "-m", "begin")
    return path


def hook(repository: Path, name: str, script: str) -> None:
    """Install a server-side hook."""
    path = repository / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@dataclass(frozen=True, slots=True)
class Place:
    """A work tree and a cache of its state remote, as the command line has them."""

    code: CodeRepository
    cache: Cache
    ledger: GitLedger

    def snapshot(self, choice: Choice | None = None) -> Snapshot:
        """The work tree as it stands."""
        code = find_code(self.code.top)
        return take_snapshot(code, self.cache, code.remote(), choice or Choice())

    def submit(self, name: str = "fast-rabbit-1") -> Submitted:
        """Submit the work tree as it stands."""
        snapshot = self.snapshot()
        return submit(self.ledger, snapshot, spec(name, snapshot.commit))


def place(folder: Path, cache: Path, *, fetching: bool = False) -> Place:
    """What a command started in `folder` works with; `fetching`: as if the remote were on another machine."""
    code = find_code(folder)
    url = code.remote().url
    made = Cache(cache, f"file://{url}" if fetching else url, borrow=code.objects)
    return Place(code, made, GitLedger(made))


def record_of(seen: Observation, name: str = "fast-rabbit-1") -> RunRecord:
    """The run of this name, which must be sound."""
    found = seen.runs[name]
    assert isinstance(found, RunRecord), found
    return found


def spec(name: str, snapshot: str = "0" * 40, nonce: str = "n") -> RunSpec:
    """What was submitted."""
    return RunSpec(
        repository="repository-1",
        run=name,
        workflow="hello",
        code=Code(commit=snapshot, snapshot=snapshot),
        submitted_by="Ada Tester <ada@example.org>",
        submitted_at=NOW,
        nonce=nonce,
    )
