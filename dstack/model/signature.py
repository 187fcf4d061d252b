"""A commit's signature and a file of signers, as bytes → values. Pure; whether a signature holds, others find out."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

from dstack.model.errors import DstackError, Invalid
from dstack.model.problems import shown

NAMESPACE = "git"
SIGNERS_LIMIT = 1024 * 1024

_SSH_BEGIN, _SSH_END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_PGP_BEGIN = b"-----BEGIN PGP SIGNATURE-----"
# What commits of run branches consist of: all else (another signature, a merged tag) might be read in two ways.
_HEADERS = frozenset({b"tree", b"parent", b"author", b"committer", b"encoding"})
_FINGERPRINT = re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})", re.ASCII)
_KEY = re.compile(r"(?:sk-)?(?:ssh-|ecdsa-)[a-z0-9@.-]+ +[A-Za-z0-9+/=]{16,}", re.ASCII)
_SSH_SAID = {
    "has expired": "it is signed with an expired key ({key})",
    "not yet valid": "it is signed with a key that is not yet valid ({key})",
    "not permitted for use in signature namespace": "it is signed with a key that may not sign for git ({key})",
    "revoked": "it is signed with a revoked key ({key})",
    "incorrect signature": "its signature is bad: the commit was changed after it was signed",
}
_GPG_SAID = {
    "BADSIG": "its signature is bad: the commit was changed after it was signed",
    "EXPSIG": "its signature has expired",
    "EXPKEYSIG": "it is signed with the expired key of {who}",
    "REVKEYSIG": "it is signed with the revoked key of {who}",
    "NO_PUBKEY": "it is signed by a stranger: the key {who} isn't in the keyring here",
    "ERRSIG": "its signature can't be checked: gpg doesn't know its kind",
}


class Distrusted(DstackError):
    """A commit that isn't signed as it must be. The message is a clause about the commit: `it is not signed`."""


class Kind(StrEnum):
    """What made a signature."""

    SSH = "ssh"
    GPG = "gpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signed commit: what was signed, and the signature in its armour."""

    kind: Kind
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who may sign: `ssh` as ssh-keygen reads it (ALLOWED SIGNERS), and fingerprints of GPG keys with a name each."""

    ssh: bytes = b""
    gpg: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.ssh or self.gpg)


def parse_signers(data: bytes, path: str) -> Signers:
    """A file of signers: lines of OpenSSH's allowed_signers, and GPG fingerprints, with a name behind them if wanted.

    Raises Invalid with the line: ssh-keygen would silently leave out all that is behind a line that it can't read.
    """
    if len(data) > SIGNERS_LIMIT:
        msg = f"{path} has {len(data)} bytes; at most {SIGNERS_LIMIT} are read"
        raise Invalid(msg)
    ssh: list[str] = []
    gpg: dict[str, str] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if found := _fingerprint(text):
            gpg[found[0]] = found[1] or found[0]
        elif _KEY.search(text.partition(" ")[2]):
            ssh.append(text)
        else:
            msg = (
                f"{path}:{number}: {shown(text)} is no signer: write `MAIL ssh-ed25519 AAAA…`, or the fingerprint of a "
                "GPG key (40 hexadecimal digits)"
            )
            raise Invalid(msg)
    return Signers(ssh="".join(f"{line}\n" for line in ssh).encode(), gpg=gpg)


def signed_of(commit: bytes, *, ours: bool = True) -> Signed:
    """What was signed of the raw commit object, and by what. Raises Distrusted.

    `ours`: it is one of a run's branch, which has no headers but those that dstack writes.
    """
    head, blank, message = commit.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    inside = False
    for line in head.split(b"\n"):
        if line.startswith(b" ") and inside:
            signature.append(line[1:])
            continue
        name, _, value = line.partition(b" ")
        inside = name == b"gpgsig"
        if inside and signature:
            raise Distrusted("it has two signatures")  # noqa: TRY003, EM101 (a clause)
        if ours and not inside and name not in _HEADERS:
            msg = f"its header {shown(name.decode(errors='replace'))} is none of a run's"
            raise Distrusted(msg)
        (signature if inside else kept).append(value if inside else line)
    if not signature:
        raise Distrusted("it is not signed")  # noqa: TRY003, EM101 (a clause)
    armoured = b"\n".join(signature) + b"\n"
    return Signed(kind=_kind(armoured), payload=b"\n".join(kept) + blank + message, signature=armoured)


def ssh_key_of(signature: bytes) -> tuple[str, str]:
    """The key that an SSH signature says it was made by (`SHA256:…`), and its namespace. Raises Distrusted.

    PROTOCOL.sshsig of OpenSSH: `SSHSIG`, version, key, namespace, …
    """
    body = signature.strip().removeprefix(_SSH_BEGIN).removesuffix(_SSH_END)
    try:
        data = base64.b64decode(body, validate=False)
        key, rest = _string(data.removeprefix(b"SSHSIG")[4:])
        namespace, _ = _string(rest)
    except (ValueError, binascii.Error) as error:
        raise Distrusted("its signature can't be read") from error  # noqa: TRY003, EM101 (a clause)
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return f"SHA256:{digest}", namespace.decode(errors="replace")


def ssh_refusal(signature: bytes, said: str, *, known: bool) -> str:
    """Why ssh-keygen didn't accept a signature, from its words; `known`: the key is one of the signers'."""
    key, namespace = ssh_key_of(signature)
    if namespace != NAMESPACE:
        return f"its signature is for {shown(namespace)}, not for {NAMESPACE}"
    for words, sentence in _SSH_SAID.items():
        if words in said:
            return sentence.format(key=key)
    if known and "principal" in said.lower():
        return f"its key's certificate is for another principal than the signers' file allows ({key})"
    return f"its signature by a known key doesn't hold ({key})" if known else f"it is signed by a stranger ({key})"


def gpg_verdict(status: str, allowed: dict[str, str]) -> str:
    """Who signed, from what `gpg --status-fd` printed. Raises Distrusted."""
    lines = [line.split(" ") for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    said = {words[1]: words[2:] for words in lines if len(words) > 1}
    for word, sentence in _GPG_SAID.items():
        if word in said:
            raise Distrusted(sentence.format(who=" ".join(said[word][1:] or said[word][:1])))
    valid = [words[2:] for words in lines if len(words) > 1 and words[1] == "VALIDSIG"]
    if "GOODSIG" not in said or len(valid) != 1 or not valid[0]:
        raise Distrusted("its signature can't be checked: gpg doesn't say that it is good")  # noqa: TRY003, EM101
    # The key that signed, and last the primary key that it belongs to (doc/DETAILS of GnuPG).
    fingerprints = (valid[0][-1], valid[0][0])
    name = next((allowed[one] for one in fingerprints if one in allowed), "")
    if not name:
        msg = f"it is signed by a stranger ({' '.join(said['GOODSIG'][1:])}, {fingerprints[0]})"
        raise Distrusted(msg)
    return name


def _fingerprint(text: str) -> tuple[str, str] | None:
    """A GPG fingerprint, which may be written in groups, and the name behind it."""
    words = text.split()
    joined = ""
    for number, word in enumerate(words, 1):
        joined += word.upper()
        if _FINGERPRINT.fullmatch(joined):
            return joined, " ".join(words[number:])
    return None


def _kind(armoured: bytes) -> Kind:
    if armoured.startswith(_SSH_BEGIN):
        return Kind.SSH
    if armoured.startswith(_PGP_BEGIN):
        return Kind.GPG
    raise Distrusted("its signature is neither one of SSH nor one of GPG")  # noqa: TRY003, EM101 (a clause)


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string of the SSH protocol: four bytes of length, then so many; and what follows."""
    length = int.from_bytes(data[:4])
    if len(data) < 4 + length:
        raise ValueError
    return data[4 : 4 + length], data[4 + length :]
