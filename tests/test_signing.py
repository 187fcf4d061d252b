"""Signed runs: made by git with real keys of SSH and GPG, and verified without any setting of git's."""

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from dstack.ledger import signing, verifying
from dstack.ledger.signing import Signing
from dstack.ledger.submit import submit
from dstack.ledger.verifying import SignersFile, Verifier
from dstack.model import refs
from dstack.model.errors import Failed, Invalid
from dstack.model.observation import CreateRun, SetWanted
from dstack.model.runspec import Desired, Wanted
from dstack.model.signature import Distrusted, gpg_verdict, parse_signers, signed_of
from tests import signers
from tests.repositories import Place, bare, place, record_of, sh, spec, work
from tests.signers import MAIL, STRANGER, allowed, certificate, gpg_keys, ssh_key

NAME = "fast-rabbit-1"
pytestmark = pytest.mark.keys


def made(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    return place(top, tmp_path / "cache")


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return made(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a signed run; for tests that change nothing of it."""
    place_ = made(tmp_path_factory.mktemp("kept"))
    signed(place_, ssh_key().signing()).submit()
    return place_


@pytest.fixture(scope="module", autouse=True)
def _no_agent_left() -> Iterator[None]:
    yield
    if gpg_keys.cache_info().currsize:
        subprocess.run(["gpgconf", "--homedir", str(gpg_keys().home), "--kill", "all"], check=False)


def signed(here: Place, one: Signing | None) -> Place:
    here.ledger.signing = one
    return here


def stop(here: Place) -> None:
    change = SetWanted(run=NAME, wanted=Wanted(desired=Desired.STOP))
    assert here.ledger.commit([change], here.ledger.observe(), atomic=True).won


def verifier(path: Path, *lines: str) -> Verifier:
    return Verifier(SignersFile(path=allowed(path / "signers", *lines)))


def checked(here: Place, one: Verifier) -> tuple[str, ...]:
    record = record_of(here.ledger.observe())
    return one.check_chain(here.cache.objects, record.tip)


def refused(here: Place, one: Verifier) -> str:
    with pytest.raises(Distrusted) as error:
        checked(here, one)
    return str(error.value)


def test_every_commit_of_a_run_is_signed_and_verified_with_an_ssh_key(here: Place, tmp_path: Path) -> None:
    signed(here, ssh_key().signing()).submit()
    stop(here)
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    assert checked(here, one) == (MAIL, MAIL)
    git = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={one.file.path}")
    sh(Path(here.cache.url), *git, "verify-commit", refs.run_branch(NAME))
    subject = sh(Path(here.cache.url), "log", "-1", "--format=%an %ce %s", refs.run_branch(NAME))
    assert subject == f"dstack {MAIL} Run {NAME}: stop [skip ci]"


def test_what_was_verified_is_not_verified_again(here: Place, tmp_path: Path) -> None:
    signed(here, ssh_key().signing()).submit()
    now = [0.0]
    one = replace(verifier(tmp_path, f"{MAIL} {ssh_key().public}"), clock=lambda: now[0])
    checked(here, one)
    assert one.processes == 2
    checked(here, one)
    assert one.processes == 2
    stop(here)
    checked(here, one)
    assert one.processes == 4
    now[0] = verifying.GOOD_SECONDS + 1
    checked(here, one)
    assert one.processes == 8


def test_a_key_that_is_taken_out_of_the_file_counts_no_more_at_once(kept: Place, tmp_path: Path) -> None:
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    checked(kept, one)
    allowed(one.file.path, f"{STRANGER} {ssh_key(STRANGER).public}")
    assert "signed by a stranger (SHA256:" in refused(kept, one)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{mail} {other}", "it is signed by a stranger (SHA256:"),
        ('{mail} valid-before="20200101" {key}', "it is signed with an expired key (SHA256:"),
        ('{mail} valid-after="20990101" {key}', "a key that is not yet valid (SHA256:"),
        ('{mail} namespaces="file" {key}', "a key that may not sign for git (SHA256:"),
    ],
)
def test_each_kind_of_key_that_may_not_sign_has_its_sentence(kept: Place, tmp_path: Path, line: str, said: str) -> None:
    text = line.format(mail=MAIL, key=ssh_key().public, other=ssh_key(STRANGER).public)
    assert said in refused(kept, verifier(tmp_path, text))


def test_a_certificate_of_an_authority_signs_for_its_principals_alone_and_while_it_is_valid(tmp_path: Path) -> None:
    authority, line = ssh_key("authority"), f"*@example.org cert-authority {ssh_key('authority').public}"
    good, late, other, foreign = (
        signed(
            made(_new(tmp_path / name)), certificate(by, _new(tmp_path / f"{name}-key"), who, validity=when).signing()
        )
        for name, by, who, when in (
            ("good", authority, MAIL, "always:forever"),
            ("late", authority, MAIL, "20200101:20200102"),
            ("other", authority, "ada@elsewhere.org", "always:forever"),
            ("foreign", ssh_key(STRANGER), MAIL, "always:forever"),
        )
    )
    for one in (good, late, other, foreign):
        one.submit()
    assert checked(good, verifier(tmp_path, line)) == (MAIL,)
    for one in (late, other, foreign):
        assert "it is signed by a stranger (SHA256:" in refused(one, verifier(tmp_path, line))


def _new(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_revoked_ssh_key_is_refused(kept: Place, tmp_path: Path) -> None:
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    revoked = allowed(tmp_path / "revoked", ssh_key(STRANGER).public)
    one.file = replace(one.file, revoked=revoked)
    assert checked(kept, one) == (MAIL,)
    allowed(revoked, ssh_key().public)
    assert "it is signed with a revoked key (SHA256:" in refused(kept, one)


def test_an_unsigned_run_and_one_whose_second_commit_is_unsigned_are_refused(here: Place, tmp_path: Path) -> None:
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    signed(here, ssh_key().signing()).submit()
    assert checked(here, one) == (MAIL,)
    signed(here, None)
    stop(here)
    tip = record_of(here.ledger.observe()).tip
    assert refused(here, one) == f"commit {tip[:12]}: it is not signed"
    signed(here, ssh_key().signing())
    change = SetWanted(run=NAME, wanted=Wanted(desired=Desired.ABORT))
    assert here.ledger.commit([change], here.ledger.observe(), atomic=True).won
    assert refused(here, one) == f"commit {tip[:12]}: it is not signed"


def creation(here: Place, name: str) -> CreateRun:
    snapshot = here.snapshot()
    return CreateRun(spec=spec(name, snapshot.commit), workflows=snapshot.workflows.data, variables=None)


def test_runs_that_a_controller_creates_are_signed_too(here: Place, tmp_path: Path) -> None:
    signed(here, ssh_key().signing())
    assert here.ledger.commit([creation(here, NAME)], here.ledger.observe(), atomic=True).won
    assert checked(here, verifier(tmp_path, f"{MAIL} {ssh_key().public}")) == (MAIL,)


def test_of_several_runs_in_one_push_none_is_left_where_one_cannot_be_made(here: Place) -> None:
    bad = creation(here, NAME)
    bad = replace(bad, spec=structs.replace(bad.spec, nonce="n", workflow="no name!"))
    pushed = here.ledger.commit([creation(here, "good-1"), bad], here.ledger.observe(), atomic=True)
    assert not pushed.won
    assert here.cache.remote_refs([refs.run_branch("good-1")]) == {}
    assert "dstack" not in sh(Path(here.cache.url), "for-each-ref")


def raw(kept: Place) -> bytes:
    return kept.cache.objects.raw_commit(record_of(kept.ledger.observe()).root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"Run fast", b"Run slow"), "its signature is bad"),
        (lambda data: data.replace(b"\ngpgsig ", b"\nmergetag ", 1), "its header 'mergetag' is none of a run's"),
        (lambda data: data.replace(b"BEGIN SSH", b"BEGIN XYZ"), "neither one of SSH nor one of GPG"),
        (lambda data: data.replace(b"\ngpgsig ", b"\ngpgsig x\ngpgsig "), "it has two signatures"),
        (lambda data: data.replace(b"U1NIU0lH", b"AAAAAAAA"), "its signature can't be read"),
    ],
)
def test_a_commit_that_was_tampered_with_is_refused(
    kept: Place, tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    data = raw(kept)
    assert one.signer_of(data, one.allowed()) == MAIL
    assert change(data) != data
    with pytest.raises(Distrusted, match=said):
        one.signer_of(change(data), one.allowed())


def test_a_signature_for_another_purpose_is_refused(kept: Place, tmp_path: Path) -> None:
    data = raw(kept)
    found = signed_of(data)
    (tmp_path / "payload").write_bytes(found.payload)
    signers.run("ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(ssh_key().path), str(tmp_path / "payload"))
    other = (tmp_path / "payload.sig").read_bytes().strip().replace(b"\n", b"\n ")
    forged = data.replace(found.signature.strip().replace(b"\n", b"\n "), other)
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    with pytest.raises(Distrusted, match="its signature is for 'file', not for git"):
        one.signer_of(forged, one.allowed())


def test_settings_and_attributes_of_a_repository_have_no_say_in_it(here: Place, tmp_path: Path) -> None:
    signed(here, ssh_key(STRANGER).signing()).submit()
    yes = tmp_path / "yes"
    yes.write_text(f"#!/bin/sh\ntouch {tmp_path / 'called'}\necho 'Good \"git\" signature for {MAIL} with KEY'\n")
    yes.chmod(0o755)
    for folder in (here.cache.path, here.code.top, Path(here.cache.url)):
        for name in ("gpg.program", "gpg.ssh.program", "gpg.ssh.allowedSignersFile"):
            sh(folder, "config", name, str(yes))
    assert "it is signed by a stranger" in refused(here, verifier(tmp_path, f"{MAIL} {ssh_key().public}"))
    assert not (tmp_path / "called").exists()


def test_a_commit_of_the_code_is_its_signers_whatever_headers_it_has_and_else_nobodys(
    here: Place, tmp_path: Path
) -> None:
    top, one = here.code.top, verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    key = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={ssh_key().path}")
    sh(top, *key, "commit", "--quiet", "-S", "--allow-empty", "-m", "beside")
    head = sh(top, "rev-parse", "HEAD")
    assert one.signer_of_code(here.cache.objects, head) == MAIL
    assert one.signer_of_code(here.cache.objects, sh(top, "rev-parse", "HEAD^")) == ""
    assert one.signer_of_code(here.cache.objects, "0" * 40) == ""
    raw_commit = here.cache.objects.raw_commit(head)
    with pytest.raises(Distrusted, match="none of a run's"):
        signed_of(raw_commit.replace(b"\nauthor ", b"\nmergetag x\nauthor ", 1))
    assert signed_of(raw_commit.replace(b"\nauthor ", b"\nmergetag x\nauthor ", 1), ours=False).payload


def test_a_key_of_an_agent_and_a_literal_one_sign_too(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = signers.run("ssh-agent", "-s")
    words = dict(part.split("=", 1) for part in out.replace(";", "").split() if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", words["SSH_AUTH_SOCK"])
    try:
        signers.run("ssh-add", "-q", str(ssh_key().path))
        public = allowed(tmp_path / "only.pub", ssh_key().public)
        for key in (f"key::{ssh_key().public}", ssh_key().public, str(public)):
            write = ssh_key().signing(key=key).writer(here.cache.objects, here.cache.context)
            oid = write(here.cache.objects.write_tree({}), [], "a run")
            one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
            assert one.check_chain(here.cache.objects, oid) == (MAIL,)
    finally:
        os.kill(int(words["SSH_AGENT_PID"]), 15)


def test_a_relative_key_is_one_of_the_work_tree(here: Place, tmp_path: Path) -> None:
    shutil.copy(ssh_key().path, here.code.top / "key")
    signed(here, ssh_key().signing(top=here.code.top, key="key")).submit()
    assert checked(here, verifier(tmp_path, f"{MAIL} {ssh_key().public}")) == (MAIL,)


@pytest.mark.parametrize(
    "settings",
    [
        {"gpg.format": "ssh", "user.signingkey": "/nowhere/key"},
        {"gpg.format": "ssh", "user.signingkey": "key", "gpg.ssh.program": "/bin/false"},
        {"user.signingkey": "nobody", "gpg.program": "/bin/false"},
        {"gpg.format": "nonsense", "user.signingkey": "x"},
    ],
)
def test_a_signer_that_fails_is_told_and_nothing_is_pushed(here: Place, settings: dict[str, str]) -> None:
    signed(here, Signing(settings=settings, top=here.code.top))
    with pytest.raises(
        Failed, match=r"the run can't be signed, so nothing was pushed: .+`dstack config set sign false"
    ):
        here.submit()
    assert here.ledger.observe().refs == {}


def test_gpg_keys_sign_and_an_expired_a_revoked_and_an_unlisted_one_are_refused(here: Place, tmp_path: Path) -> None:
    keys = gpg_keys()
    tree = here.cache.objects.write_tree({})
    made = {
        key: keys.signing(key).writer(here.cache.objects, here.cache.context)(tree, [], "a run")
        for key in (keys.good, keys.expired, keys.revoked)
    }
    signers.revoke(keys, keys.revoked)
    spaced = " ".join(keys.good[at : at + 4] for at in range(0, 40, 4))
    path = allowed(tmp_path / "signers", f"{spaced} {MAIL}", keys.expired, keys.revoked)
    one = Verifier(SignersFile(path=path, gnupg=keys.home))

    def why(key: str) -> str:
        with pytest.raises(Distrusted) as error:
            one.check_chain(here.cache.objects, made[key])
        return str(error.value)

    assert one.check_chain(here.cache.objects, made[keys.good]) == (MAIL,)
    assert "signed with the expired key of expired <expired@example.org>" in why(keys.expired)
    assert "signed with the revoked key of revoked <revoked@example.org>" in why(keys.revoked)
    allowed(path, keys.expired)
    assert f"signed by a stranger (good <good@example.org>, {keys.good})" in why(keys.good)
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    one = Verifier(replace(one.file, gnupg=empty))
    assert "isn't in the keyring here" in why(keys.good)


def test_words_of_gpg_that_say_less_than_a_good_signature_are_no_signature() -> None:
    fingerprint = "A" * 40
    good = f"[GNUPG:] GOODSIG AAAA Ada\n[GNUPG:] VALIDSIG {fingerprint} 2020 1 0 4 0 22 8 00 {fingerprint}\n"
    assert gpg_verdict(good, {fingerprint: "Ada"}) == "Ada"
    for text in ("", good.partition("\n")[0], good.partition("\n")[2], good + good, good.replace("GOOD", "EXP")):
        with pytest.raises(Distrusted):
            gpg_verdict(text, {fingerprint: "Ada"})


def test_a_file_of_signers_says_where_it_is_wrong() -> None:
    data = f'# ours\n\n{MAIL},*@example.com namespaces="git" {ssh_key().public} note\n{"ab" * 20} Ada\n'.encode()
    found = parse_signers(data, "signers")
    assert found.ssh.decode().startswith(MAIL)
    assert found.gpg == {"AB" * 20: "Ada"}
    for bad in ("nonsense", "ada@example.org", f"{'ab' * 12} Ada", "ada@example.org ssh-ed25519"):
        with pytest.raises(Invalid, match="signers:2: "):
            parse_signers(f"# ours\n{bad}\n".encode(), "signers")
    assert not parse_signers(b"# nobody\n", "signers")


def test_signers_that_cannot_be_read_are_a_failure_not_a_verdict(kept: Place, tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "can't be read"), (allowed(tmp_path / "empty"), "names nobody")):
        with pytest.raises(Failed, match=said):
            checked(kept, Verifier(SignersFile(path=path)))


def test_a_machine_without_ssh_keygen_is_told_what_to_install(
    kept: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = verifier(tmp_path, f"{MAIL} {ssh_key().public}")
    record = record_of(kept.ledger.observe())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="apt-get install openssh-client"):
        one.check_chain(kept.cache.objects, record.tip)


@pytest.mark.parametrize(
    ("sign", "settings", "wanted"),
    [
        ("auto", {}, False),
        ("auto", {"commit.gpgsign": "true"}, True),
        ("auto", {"commit.gpgsign": ""}, True),
        ("auto", {"commit.gpgsign": "false", "user.signingkey": "k", "gpg.format": "ssh"}, False),
        ("auto", {"user.signingkey": "k", "gpg.format": "ssh"}, True),
        ("auto", {"user.signingkey": "k"}, False),
        (True, {}, True),
        (False, {"commit.gpgsign": "true"}, False),
    ],
)
def test_runs_are_signed_where_git_is_set_up_to(*, sign: bool | str, settings: dict[str, str], wanted: bool) -> None:
    assert signing.is_wanted(sign, settings) is wanted


def test_the_settings_of_a_folder_are_those_of_git(here: Place) -> None:
    sh(here.code.top, "config", "user.signingKey", "key::x")
    assert signing.settings_of(here.code.top)["user.signingkey"] == "key::x"
    assert signing.settings_of(here.code.top)["user.email"] == MAIL


def test_an_unsigned_submit_starts_no_more_processes(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    run = subprocess.Popen.__init__

    def counted(self: subprocess.Popen[bytes], args: list[str], **more: object) -> None:
        begun.append(next(word for word in args[1:] if not word.startswith("-") and "=" not in word))
        run(self, args, **more)  # type: ignore[call-overload]

    snapshot = here.snapshot()
    monkeypatch.setattr(subprocess.Popen, "__init__", counted)
    submit(here.ledger, snapshot, spec(NAME, snapshot.commit))
    assert begun == ["push"]


def test_base64_of_the_magic_is_what_the_test_above_spoils() -> None:
    assert base64.b64encode(b"SSHSIG") == b"U1NIU0lH"
