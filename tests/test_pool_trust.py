"""A runner that takes signed runs only, as its owner has set it up, with a controller that demands nothing."""

import signal
from pathlib import Path

import msgspec
import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model.observation import SetAssignments
from tests.pool import pool
from tests.repositories import sh
from tests.signers import MAIL, allowed, ssh_key

WORKFLOWS = "workflows:\n- name: hello\n  commands: [echo hello pool]\n"


@pytest.mark.keys
@pytest.mark.timeout(120)
def test_what_is_not_signed_or_was_altered_is_refused_with_the_reason_in_status(tmp_path: Path) -> None:
    signers = allowed(tmp_path / "signers", f"{MAIL} {ssh_key().public}")
    with pool(tmp_path / "pool", WORKFLOWS) as at:

        def end(run: str) -> tuple[str, str, str]:
            at.eventually(lambda: at.view(run).state.finished is not None)
            (job,) = at.json("status", run)[0]["jobs"]
            return job["status"], job["reason"], job["message"]

        at.configure_runner("otter", "--executor", "process", "--signed", "--signers", str(signers))
        at.start_controller()
        at.start_runner("otter")
        at.dstack("run", "hello", "-d", "--name", "plain-1")
        status, reason, message = end("plain-1")
        assert (status, reason) == ("FAILED", "signature")
        assert "it is not signed" in message
        sh(at.code, "config", "gpg.format", "ssh")
        sh(at.code, "config", "user.signingkey", str(ssh_key().path))

        at.daemons["otter"].send_signal(signal.SIGSTOP)
        at.dstack("run", "hello", "-d", "--name", "altered-1")
        ledger = GitLedger(Cache(tmp_path / "hand", str(at.remote)))
        at.eventually(lambda: bool(ledger.observe().assignments["otter"].attempts))
        at.kill("controller")
        seen = ledger.observe()
        held = seen.assignments["otter"]
        attempts = {
            key: msgspec.structs.replace(one, snapshot=sh(at.code, "rev-parse", "HEAD")[::-1])
            for key, one in held.attempts.items()
        }
        assert ledger.commit([SetAssignments(runner="otter", attempts=attempts, jobs=held.jobs)], seen, atomic=True).won
        at.daemons["otter"].send_signal(signal.SIGCONT)
        at.eventually(lambda: any("otter" in note for note in _writers(ledger, "altered-1")))
        at.start_controller()
        status, reason, message = end("altered-1")
        assert (status, reason) == ("FAILED", "signature")
        assert "the assignment was altered" in message


def _writers(ledger: GitLedger, run: str) -> list[str]:
    return [writer for key, writers in ledger.observe().notes.items() if key.name == run for writer in writers]
