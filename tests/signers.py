"""Keys of ssh-keygen and gpg for tests, made once, and git settings that sign with them."""

import atexit
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from dstack.ledger.signing import Signing

MAIL = "ada@example.org"
STRANGER = "mallory@example.org"


def run(*command: str, stdin: bytes = b"", **more: str) -> str:
    """What a command prints; it must not fail."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, env={**os.environ, **more})
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.decode()


@dataclass(frozen=True, slots=True)
class SshKey:
    """A private key's file, with the public one beside it."""

    path: Path

    @property
    def public(self) -> str:
        """Kind and key, without the comment."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    def signing(self, top: Path | None = None, key: str | None = None, **more: str) -> Signing:
        """As git is set up to sign with it."""
        settings = {"gpg.format": "ssh", "user.signingkey": key or str(self.path), **more}
        return Signing(settings=settings, top=top or self.path.parent)


@cache
def ssh_key(name: str = MAIL) -> SshKey:
    """One of this name."""
    path = _folder("dstack-test-ssh-") / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
    return SshKey(path)


def certificate(authority: SshKey, folder: Path, *principals: str, validity: str = "always:forever") -> SshKey:
    """A key of its own, with a certificate that the authority has made for these principals: it signs by that."""
    path = folder / "certified"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "certified", "-f", str(path))
    words = ("-I", "test", "-n", ",".join(principals), "-V", validity)
    run("ssh-keygen", "-q", "-s", str(authority.path), *words, str(path.with_suffix(".pub")))
    return SshKey(folder / "certified-cert.pub")


@dataclass(frozen=True, slots=True)
class GpgKeys:
    """A GPG home with a good key, an expired one and a revoked one, each by its fingerprint."""

    home: Path
    good: str
    expired: str
    revoked: str

    def signing(self, key: str) -> Signing:
        """As git is set up to sign with it, long ago where it is too late now."""
        script = self.home / "gpg-then"
        script.write_text(f'#!/bin/sh\nexec gpg --homedir {self.home} --faked-system-time 20200102T000000 "$@"\n')
        script.chmod(0o700)
        return Signing(settings={"user.signingkey": key, "gpg.program": str(script)}, top=self.home)


@cache
def gpg_keys() -> GpgKeys:
    """They were made in 2020; one was good for two days."""
    home = _folder("dg")  # the path of a socket must be short
    gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet", "--faked-system-time", "20200101T000000")
    make = ("--passphrase", "", "--pinentry-mode", "loopback", "--quick-generate-key")
    for name, expires in (("good", "never"), ("expired", "2d"), ("revoked", "never")):
        run(*gpg, *make, f"{name} <{name}@example.org>", "ed25519", "sign", expires)
    listed = run(*gpg, "--with-colons", "--list-keys").splitlines()
    good, expired, revoked = (line.split(":")[9] for line in listed if line.startswith("fpr:"))
    return GpgKeys(home=home, good=good, expired=expired, revoked=revoked)


def _folder(prefix: str) -> Path:
    """For this process alone."""
    path = Path(mkdtemp(prefix=prefix, dir="/tmp"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def revoke(keys: GpgKeys, fingerprint: str) -> None:
    """With the certificate that gpg makes with each key, and spoils by a colon."""
    text = (keys.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    run("gpg", "--homedir", str(keys.home), "--batch", "--quiet", "--import", stdin=text.encode())


def allowed(path: Path, *lines: str) -> Path:
    """A file of signers."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
