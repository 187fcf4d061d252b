"""Remotes and stores behind TLS: an authority of one's own is trusted where it is named; all else is explained."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.code import find_code
from dstack.ledger.git import Context
from dstack.ledger.push import RefUpdate
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.store import s3_client
from dstack.store.location import open_store
from dstack.store.store import Store
from tests.calls import desk
from tests.git_servers import HttpServer, running
from tests.repositories import bare, sh, work
from tests.s3_server import S3Server
from tests.sources import Bytes
from tests.tls import HOST, TlsFront, certified, trusting

LARGE = bytes(range(256)) * 40_000
Front = Callable[..., TlsFront]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """Puts TLS before a port. Nothing waits long, and no client of another test is used."""
    monkeypatch.setattr(s3_client, "TRIES", 1)
    monkeypatch.setattr(s3_client, "READ_SECONDS", 5)
    s3_client._client.cache_clear()
    made: list[TlsFront] = []

    def put(port: int, kind: str = "good", *, hangs_up: bool = False) -> TlsFront:
        made.append(TlsFront(port, certified(kind), hangs_up=hangs_up))
        return made[-1]

    yield put
    for one in made:
        one.close()
    s3_client._client.cache_clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    bare(tmp_path / "served/state.git")
    made = HttpServer(tmp_path / "served", login=None)
    with running(made):
        yield made


def cache_of(top: Path, folder: Path, there: TlsFront) -> Cache:
    """As a daemon reaches the remote of a user's repository."""
    sh(top, "remote", "add", "origin", f"https://{HOST}:{there.port}/state.git")
    remote = find_code(top).remote()
    return Cache(folder, remote.url, context=Context(folder=folder, environment=remote.environment, timeout=20.0))


def store_at(s3: S3Server, there: TlsFront) -> Store:
    return open_store(s3.url(endpoint_url=f"https://{HOST}:{there.port}"), "r1", create=True)


@pytest.mark.parametrize("way", ["environment", "global", "local", "for this host"])
def test_git_trusts_the_authority_that_the_users_settings_name(
    server: HttpServer, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    there, named = front(server.port), trusting(tmp_path / "ca.pem")
    top = work(tmp_path / "code")
    if way == "environment":
        monkeypatch.setenv("GIT_SSL_CAINFO", str(named))
    elif way == "global":
        (tmp_path / "gitconfig").write_text(f"[http]\n\tsslCAInfo = {named}\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    else:
        of_host = f"https://{HOST}:{there.port}." if way == "for this host" else ""
        sh(top, "config", f"http.{of_host}sslCAInfo", str(named))
    cache = cache_of(top, tmp_path / "cache", there)
    commit = cache.objects.write_commit(cache.objects.write_tree({}), [], "x")
    assert cache.push([RefUpdate(refs.runner("otter"), None, commit)], atomic=True).won
    assert cache.poll() == {refs.runner("otter"): commit}


class Wrong(NamedTuple):
    """A certificate of a kind, with our authority `named` or not; what is said of it: of a remote, and of a store."""

    kind: str
    named: bool
    of_remote: str
    of_store: str


WRONG = (
    Wrong("good", named=False, of_remote=r"http\.sslCAInfo", of_store="AWS_CA_BUNDLE"),
    Wrong(
        "expired",
        named=True,
        of_remote=r"(?s)expired.*clock|clock.*expired",
        of_store=r"has expired.*clock of this machine",
    ),
    Wrong("host", named=True, of_remote="another host", of_store=r"another host.*endpoint_url"),
)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_git_finds_wrong_with_a_certificate_is_explained(
    server: HttpServer, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Wrong
) -> None:
    if wrong.named:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(trusting(tmp_path / "ca.pem")))
    cache = cache_of(work(tmp_path / "code"), tmp_path / "cache", front(server.port, wrong.kind))
    with pytest.raises(Failed, match="certificate") as caught:
        cache.poll()
    assert caught.match(wrong.of_remote)


def test_a_file_of_authorities_that_is_not_there_is_told(
    server: HttpServer, front: Front, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "none.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    cache = cache_of(work(tmp_path / "code"), tmp_path / "cache", front(server.port))
    with pytest.raises(Failed, match=r"http\.sslCAInfo"):
        cache.poll()
    with pytest.raises(Failed, match="AWS_CA_BUNDLE"):
        store_at(s3, front(s3.ports["s3"]))


def test_who_hangs_up_before_a_word_of_tls_is_away(
    server: HttpServer, front: Front, s3: S3Server, tmp_path: Path
) -> None:
    """As a server does that is just being started: that is no matter for a person."""
    cache = cache_of(work(tmp_path / "code"), tmp_path / "cache", front(server.port, hangs_up=True))
    with pytest.raises(Unavailable) as caught:
        cache.poll()
    assert caught.value.away
    with pytest.raises(Unavailable) as caught:
        store_at(s3, front(s3.ports["s3"], hangs_up=True))
    assert caught.value.away


def test_a_bucket_behind_tls_takes_objects_whole_and_in_parts(
    s3: S3Server, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusting(tmp_path / "ca.pem")))
    store = store_at(s3, front(s3.ports["s3"]))
    store.put("k", b"x")
    store.put("objects/large", Bytes(LARGE))
    assert store.get("k", limit=9) == b"x"
    assert store.get("objects/large", limit=len(LARGE)) == LARGE


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_the_certificate_of_a_store_is_explained(
    s3: S3Server, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Wrong
) -> None:
    if wrong.named:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(trusting(tmp_path / "ca.pem")))
    with pytest.raises(Failed, match=wrong.of_store):
        store_at(s3, front(s3.ports["s3"], wrong.kind))


def test_a_run_over_tls_alone(  # noqa: PLR0917 (fixtures)
    server: HttpServer,
    s3: S3Server,
    front: Front,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at, git, bytes_ = desk(tmp_path / "desk", capfd), front(server.port), front(s3.ports["s3"])
    words = ["--store", f"s3://{s3.bucket()}", "--endpoint-url", f"https://{HOST}:{bytes_.port}"]
    refused = at.dstack("init", "--remote", f"https://{HOST}:{git.port}/state.git", *words)
    assert (refused.code, "http.sslCAInfo" in refused.err) == (1, True), refused
    monkeypatch.setenv("GIT_SSL_CAINFO", str(trusting(tmp_path / "ca.pem")))
    refused = at.dstack("init", "--remote", f"https://{HOST}:{git.port}/state.git", *words)
    assert (refused.code, "AWS_CA_BUNDLE" in refused.err) == (1, True), refused
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    # From here on a busy server may have to be asked twice, as ever.
    monkeypatch.setattr(s3_client, "TRIES", 4)
    monkeypatch.setattr(s3_client, "READ_SECONDS", 30)
    s3_client._client.cache_clear()
    assert at.dstack("init", "--remote", f"https://{HOST}:{git.port}/state.git", *words).code == 0
    assert at.dstack("run", "prepare", "--local", "--name", "far").code == 0
    assert at.dstack("artifacts", "far", "--output", str(tmp_path / "there")).code == 0
    assert (tmp_path / "there/data/rows.txt").read_text().splitlines() == ["1", "2", "3", "4", "5"]
