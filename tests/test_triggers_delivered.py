"""Pushes of code as users make them: webhooks to two controllers as processes, which also look by themselves."""

import hashlib
import hmac
import json
import time
from collections import Counter
from pathlib import Path

import httpx

from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model.hookpath import hook_path
from dstack.model.observation import RunRecord
from tests.git_servers import free_port, wait_for_port
from tests.pool import Pool, pool
from tests.repositories import sh

SECRET = "a-secret-of-some-length"  # noqa: S105 (made for the test)
WORKFLOWS = """
workflows:
- {name: test, on: push, commands: [echo test]}
- {name: release, on: {push: {branches: ['release/**']}}, commands: [echo release]}
- {name: docs, on: {push: {paths: ['docs/**']}}, commands: [echo docs]}
"""


def _ledger(at: Pool) -> GitLedger:
    return GitLedger(Cache(at.folder / "judge", str(at.remote)))


def _started(at: Pool) -> Counter[tuple[str, str]]:
    """How many runs there are, by workflow and commit."""
    runs = [run for run in _ledger(at).observe().runs.values() if isinstance(run, RunRecord)]
    return Counter((run.spec.workflow, run.spec.trigger.commit if run.spec.trigger else "") for run in runs)


def _push(at: Pool, path: str, branch: str = "main") -> str:
    (at.code / path).parent.mkdir(exist_ok=True)
    (at.code / path).write_text(f"{time.time_ns()}\n")
    sh(at.code, "add", ".")
    sh(at.code, "commit", "--quiet", "-m", path)
    sh(at.code, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    return sh(at.code, "rev-parse", "HEAD")


def _deliver(at: Pool, port: int, commit: str, secret: str = SECRET) -> int:
    """As GitHub does; the status of the answer."""
    body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Delivery": commit}
    path = hook_path(SECRET, _ledger(at).observe().repository or "")
    return httpx.post(f"http://127.0.0.1:{port}/hooks/{path}", content=body, headers=headers).status_code


def test_a_push_delivered_three_times_to_two_controllers_starts_each_workflow_once(tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with pool(tmp_path, WORKFLOWS, DSTACK_WEBHOOK_SECRET=SECRET) as at:
        for port in ports:
            at.start(f"controller-{port}", "dstack", "controller", "--http", f"127.0.0.1:{port}")
            wait_for_port(port)
        at.eventually(lambda: _ledger(at).observe().seen is not None)
        first = _push(at, "train.py")
        answers = [_deliver(at, port, first) for _ in range(3) for port in ports]
        assert set(answers) <= {200, 202}
        assert _deliver(at, ports[0], first, secret="another") == 401  # noqa: S106 (likewise)
        expected = Counter({("test", first): 1})
        at.eventually(lambda: _started(at) == expected)
        # One is killed, the news is delivered late, and to the other alone.
        at.kill(f"controller-{ports[0]}")
        second = _push(at, "docs/a.md", "release/1")
        expected += Counter({("test", second): 1, ("release", second): 1, ("docs", second): 1})
        at.eventually(lambda: _started(at) == expected)
        for _ in range(3):
            assert _deliver(at, ports[1], second) in {200, 202}
        third = _push(at, "train.py")  # of this one no webhook comes at all
        expected += Counter({("test", third): 1, ("docs", third): 1})
        at.eventually(lambda: _started(at) == expected)
        at.start("controller-again", "dstack", "controller")
        time.sleep(1.5)
        assert _started(at) == expected, "nothing starts twice, whoever comes and whatever came"
