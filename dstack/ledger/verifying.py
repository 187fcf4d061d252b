"""Verifies signed commits: the one home of ssh-keygen and gpg. No git setting of anybody's has a say in it."""

import hashlib
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dstack.ledger.objects import Objects
from dstack.model.errors import DstackError, Failed
from dstack.model.problems import shown
from dstack.model.signature import (
    NAMESPACE,
    SIGNERS_LIMIT,
    Distrusted,
    Kind,
    Signed,
    Signers,
    gpg_verdict,
    parse_signers,
    signed_of,
    ssh_refusal,
)

LOG = logging.getLogger(__name__)

TIMEOUT = 30.0
# A key that is taken out of the file counts no more at once; one that expires, or is revoked in a keyring, after this.
GOOD_SECONDS = 600.0
BAD_SECONDS = 30.0
# Nobody stops and resumes a run so often; each has to be verified.
MOST_COMMITS = 1_000

_KEPT = ("PATH", "HOME", "TMPDIR", "GNUPGHOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignersFile:
    """Where those stand who may sign. `revoked`: keys or a KRL as ssh-keygen reads them. `gnupg`: a GPG home."""

    path: Path
    revoked: Path | None = None
    gnupg: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The files as they are now; `digest` of both."""

    signers: Signers
    revoked: bytes
    digest: bytes


@dataclass(slots=True)
class Verifier:
    """Tells by whom commits are signed, and remembers it. For one thread. `clock` in seconds."""

    file: SignersFile
    clock: Callable[[], float] = field(default=time.monotonic)
    processes: int = 0
    _known: dict[tuple[str, bytes, bool], tuple[float, str, str]] = field(default_factory=dict)

    def check_chain(self, objects: Objects, tip: str) -> tuple[str, ...]:
        """Who signed the commits of a run's branch, root first. Raises Distrusted, Failed, Invalid, Damaged."""
        allowed = self.allowed()
        chain = tuple(_chain(objects, tip))
        return tuple(self._signer(objects, oid, allowed) for oid in reversed(chain))

    def signer_of_code(self, objects: Objects, commit: str) -> str:
        """Who signed a commit of the code; empty where nobody did whose signature can be verified."""
        try:
            return self._signer(objects, commit, self.allowed(), ours=False)
        except DstackError as error:
            LOG.info("the commit %s counts as nobody's: %s", commit[:12], error)
            return ""

    def allowed(self) -> Allowed:
        """Who may sign now. Raises Failed, Invalid."""
        data = _read(self.file.path, "the file of signers")
        revoked = _read(self.file.revoked, "the file of revoked keys") if self.file.revoked else b""
        digest = hashlib.sha256(len(data).to_bytes(8) + data + revoked).digest()
        found = parse_signers(data, str(self.file.path))
        if not found:
            msg = f"the file of signers {self.file.path} names nobody"
            raise Failed(msg)
        return Allowed(signers=found, revoked=revoked, digest=digest)

    def signer_of(self, commit: bytes, allowed: Allowed, *, ours: bool = True) -> str:
        """Who signed a raw commit object; `ours`: one of a run. Raises Distrusted, Failed."""
        signed = signed_of(commit, ours=ours)
        with tempfile.TemporaryDirectory(prefix="dstack-verify-") as name:
            place = Path(name)
            (place / "signature").write_bytes(signed.signature)
            return self._gpg(place, signed, allowed) if signed.kind is Kind.GPG else self._ssh(place, signed, allowed)

    def _signer(self, objects: Objects, oid: str, allowed: Allowed, *, ours: bool = True) -> str:
        now = self.clock()
        until, who, why = self._known.get((oid, allowed.digest, ours), (now, "", ""))
        if until <= now:
            who, why = self._look(objects, oid, allowed, ours=ours)
            self._known = {key: one for key, one in self._known.items() if one[0] > now}
            self._known[oid, allowed.digest, ours] = (now + (BAD_SECONDS if why else GOOD_SECONDS), who, why)
        if why:
            raise Distrusted(why)
        return who

    def _look(self, objects: Objects, oid: str, allowed: Allowed, *, ours: bool) -> tuple[str, str]:
        try:
            return self.signer_of(objects.raw_commit(oid), allowed, ours=ours), ""
        except Distrusted as error:
            return "", f"commit {oid[:12]}: {error}"

    def _ssh(self, place: Path, signed: Signed, allowed: Allowed) -> str:
        (place / "allowed").write_bytes(allowed.signers.ssh)
        files = ("-f", str(place / "allowed"), "-s", str(place / "signature"))
        found = self._run(place, ("ssh-keygen", "-Y", "find-principals", *files), b"")
        principals = dict.fromkeys(found.stdout.decode(errors="replace").splitlines())
        said, known = _said(found), found.returncode == 0 and bool(principals)
        for principal in principals if known else ():
            verify = ("ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", principal, *files)
            done = self._run(place, verify, signed.payload)
            if done.returncode == 0:
                said = self._revoked(place, verify, signed, allowed)
                if not said:
                    return principal
                break
            said = _said(done)
        raise Distrusted(ssh_refusal(signed.signature, said, known=known))

    def _revoked(self, place: Path, verify: Sequence[str], signed: Signed, allowed: Allowed) -> str:
        """A word on a good signature whose key is revoked; empty where it isn't."""
        if not allowed.revoked:
            return ""
        (place / "revoked").write_bytes(allowed.revoked)
        done = self._run(place, (*verify, "-r", str(place / "revoked")), signed.payload)
        return "" if done.returncode == 0 else "revoked"

    def _gpg(self, place: Path, signed: Signed, allowed: Allowed) -> str:
        home = ("--homedir", str(self.file.gnupg)) if self.file.gnupg else ()
        quiet = ("--batch", "--no-tty", "--disable-dirmngr", "--trust-model", "always", "--status-fd", "1")
        command = ("gpg", *home, *quiet, "--verify", str(place / "signature"), "-")
        done = self._run(place, command, signed.payload)
        return gpg_verdict(done.stdout.decode(errors="replace"), allowed.signers.gpg)

    def _run(self, place: Path, command: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        self.processes += 1
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            return subprocess.run(
                command,
                cwd=place,
                env={**environment, "LC_ALL": "C"},
                input=stdin,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            package = "gnupg" if command[0] == "gpg" else "openssh-client"
            msg = f"signatures can't be verified without {command[0]}: install it (apt-get install {package})"
            raise Failed(msg) from error
        except subprocess.TimeoutExpired as error:
            msg = f"{command[0]} took longer than {TIMEOUT:g} seconds to verify a signature"
            raise Failed(msg) from error


def _chain(objects: Objects, tip: str) -> Iterator[str]:
    """From the tip to the root, by first parents. Raises Distrusted, Invalid, Damaged."""
    oid = tip
    for _ in range(MOST_COMMITS):
        yield oid
        parents = objects.commit(oid).parents
        if not parents:
            return
        oid = parents[0]
    msg = f"the branch has more than {MOST_COMMITS} commits to verify"
    raise Distrusted(msg)


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SIGNERS_LIMIT + 1)
    except OSError as error:
        msg = f"{what} {shown(str(path))} can't be read: {error.strerror}"
        raise Failed(msg) from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode(errors="replace")
