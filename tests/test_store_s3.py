"""The S3 store where it differs from others: large objects in parts, cut off and resumed; servers that are not well."""

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.awsrequest import AWSResponse

from dstack.model.errors import DstackError, Failed, Unavailable
from dstack.model.s3_place import moved, parse_place, store_url
from dstack.store import s3_client, s3_parts
from dstack.store.location import open_store
from dstack.store.s3 import S3Store
from tests.forwarder import Forwarder
from tests.s3_server import S3Server, objects
from tests.sources import Bytes

MIB = 1024 * 1024
KEY = "objects/large"


def opened(url: str) -> S3Store:
    return S3Store(parse_place(url), url=url)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def wire(s3: S3Server) -> Iterator[Forwarder]:
    made = Forwarder(("127.0.0.1", s3.ports["s3"]))
    yield made
    made.close()


def through(wire: Forwarder, s3: S3Server, bucket: str) -> S3Store:
    return opened(s3.url(bucket, endpoint_url=f"http://127.0.0.1:{wire.port}"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon. The client is made anew for it."""
    monkeypatch.setattr(s3_client, "TRIES", 1)
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    monkeypatch.setattr(s3_client, "CONNECT_SECONDS", 1)
    s3_client._client.cache_clear()


def random_bytes(size: int) -> bytes:
    return os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB)


def read(store: S3Store, key: str = KEY) -> bytes:
    stream = store.open(key)
    assert stream is not None
    with stream as file:
        return file.read()


@pytest.mark.parametrize("size", [1, 8 * MIB, 8 * MIB + 1, 100 * MIB, 9_000 * 8 * MIB + 1, 5 * 2**40])
def test_parts_cover_an_object_and_a_server_takes_them(size: int) -> None:
    at, number, smallest = 0, 0, []
    for part in s3_parts.parts_of(size):
        assert part.start == at
        at, number = at + part.size, number + 1
        smallest.append(part.size)
    assert at == size
    assert number <= 10_000
    assert number == 1 or min(smallest[:-1]) >= 5 * MIB


def test_an_upload_that_was_killed_goes_on_where_it_was(s3: S3Server, bucket: str, wire: Forwarder) -> None:
    data = random_bytes(160 * MIB)
    url = s3.url(bucket, endpoint_url=f"http://127.0.0.1:{wire.port}")
    wire.rate = 8 * MIB
    program = (
        "import sys; from tests.sources import Bytes; from dstack.store.s3 import S3Store; "
        "from dstack.model.s3_place import parse_place; url = sys.argv[1]; "
        "S3Store(parse_place(url), url=url).put('objects/large', Bytes(sys.stdin.buffer.read()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, url], stdin=subprocess.PIPE, cwd=Path(__file__).parent.parent
    ) as process:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
        while wire.upstream < 100 * MIB:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    wire.cut()
    assert objects(s3, bucket) == {}
    wire.rate, before = None, wire.upstream
    wire.heal()
    told: list[int] = []
    store = opened(url)
    assert store.put(KEY, Bytes(data), sent=told.append)
    assert sum(told) == len(data)
    assert wire.upstream - before < 110 * MIB  # the rest, and what was under way in eight parts
    assert hashlib.sha256(read(store)).digest() == hashlib.sha256(data).digest()


def test_an_upload_that_the_network_cut_goes_on_where_it_was(
    s3: S3Server, bucket: str, wire: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "TRIES", 1)
    s3_client._client.cache_clear()
    data, store = random_bytes(96 * MIB), through(wire, s3, bucket)

    done = 0

    def cut(size: int) -> None:
        nonlocal done
        done += size
        if done >= 40 * MIB:
            wire.cut()

    with pytest.raises(Unavailable):
        store.put(KEY, Bytes(data), sent=cut)
    wire.heal()
    before = wire.upstream
    assert store.put(KEY, Bytes(data))
    assert wire.upstream - before < 60 * MIB
    assert read(store) == data


def test_two_who_upload_the_same_at_once_both_succeed(s3: S3Server, bucket: str) -> None:
    data, url = random_bytes(40 * MIB), s3.url(bucket)
    for turn in range(3):
        key = f"objects/{turn}"
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(put_again, opened(url), key, data) for _ in range(3)]
            assert all(one.result() for one in done)
        assert read(opened(url), key) == data
    uploads = s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert len(uploads) <= 6  # whoever came too late for one that others had ended


def put_again(store: S3Store, key: str, data: bytes) -> bool:
    """As those above the store do."""
    for _ in range(5):
        try:
            return store.put(key, Bytes(data))
        except Unavailable:
            continue
    return False


def test_parts_of_something_else_are_not_taken_for_ours(s3: S3Server, bucket: str) -> None:
    client, other = s3.client(), random_bytes(24 * MIB)
    upload = client.create_multipart_upload(Bucket=bucket, Key=KEY)["UploadId"]
    for number in (1, 2):
        body = other[: 8 * MIB] if number == 1 else b"short"
        client.upload_part(Bucket=bucket, Key=KEY, UploadId=upload, PartNumber=number, Body=body)
    data = random_bytes(24 * MIB)
    store = opened(s3.url(bucket))
    assert store.put(KEY, Bytes(data))
    assert read(store) == data


def test_a_source_that_breaks_leaves_no_upload_behind(s3: S3Server, bucket: str) -> None:
    class Broken:
        size = 64 * MIB

        def read(self, start: int, size: int) -> bytes:
            if start > 20 * MIB:
                msg = "the file has changed"
                raise OSError(msg)
            return bytes(size)

    with pytest.raises(OSError, match="has changed"):
        opened(s3.url(bucket)).put(KEY, Broken())
    assert s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert objects(s3, bucket) == {}


def test_a_download_that_breaks_goes_on_where_it_was(s3: S3Server, bucket: str, wire: Forwarder) -> None:
    data = random_bytes(30 * MIB)
    opened(s3.url(bucket)).put(KEY, Bytes(data))
    stream = through(wire, s3, bucket).open(KEY)
    assert stream is not None
    pieces = []
    with stream as file:
        while piece := file.read(MIB):
            pieces.append(piece)
            if len(pieces) in (5, 15):
                wire.cut()
                wire.heal()
    assert b"".join(pieces) == data


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(s3: S3Server, bucket: str, wire: Forwarder) -> None:
    store = through(wire, s3, bucket)
    store.put(KEY, Bytes(random_bytes(30 * MIB)))
    stream = store.open(KEY)
    assert stream is not None
    with stream as file:
        file.read(MIB)
        opened(s3.url(bucket)).put(KEY, Bytes(random_bytes(30 * MIB)))
        wire.cut()
        wire.heal()
        with pytest.raises(DstackError):
            file.read()


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_away_is_unavailable_and_comes_back(s3: S3Server, bucket: str, wire: Forwarder) -> None:
    store = through(wire, s3, bucket)
    store.put("k", b"x")
    wire.cut()
    calls: list[Callable[[], object]] = [
        lambda: store.put("k", b"y"),
        lambda: store.put(KEY, Bytes(bytes(20 * MIB))),
        lambda: store.get("k", limit=9),
        lambda: store.head("k"),
        lambda: list(store.list("")),
        lambda: store.delete("k"),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match="can't be reached"):
            call()
    wire.heal()
    assert store.get("k", limit=9) == b"x"


def test_a_server_that_is_killed_and_restarted_keeps_what_it_said(s3: S3Server, bucket: str) -> None:
    store = opened(s3.url(bucket))
    for number in range(20):
        store.put(f"logs/{number:04d}", b"%d" % number)
    s3.kill()
    s3.start()
    assert [store.get(head.key, limit=9) for head in store.list("logs/")] == [b"%d" % n for n in range(20)]


@pytest.fixture
def ill() -> Iterator[Callable[..., str]]:
    """A server that answers everything, or what has a header, in one way; gives the URL of a store in it."""
    servers = []

    def start(status: int, code: str, *, headers: dict[str, str] | None = None, only: str = "Host") -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                wrong = only in self.headers
                text = f"<Error><Code>{code}</Code><Message>because</Message></Error>" if wrong else ""
                self.send_response(status if wrong else 404 if self.command == "HEAD" else 200)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode() if self.command != "HEAD" else b"")

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 (its names)

            def log_message(self, *_: Any) -> None:  # noqa: ANN401 (nobody reads it)
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"s3://bucket/p?endpoint_url=http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


WRONG = [
    (404, "NoSuchBucket", Failed, "no such bucket"),
    (403, "AccessDenied", Failed, "refuses PutObject of k: give this key the right"),
    (403, "InvalidAccessKeyId", Failed, "doesn't know this access key"),
    (403, "SignatureDoesNotMatch", Failed, "refuses the secret key"),
    (400, "ExpiredToken", Failed, "log in again"),
    (403, "RequestTimeTooSkewed", Failed, "clock of this machine"),
    (400, "AuthorizationHeaderMalformed", Failed, "it is in eu-central-1"),
    (403, "QuotaExceeded", Failed, "is full"),
    (400, "EntityTooLarge", Failed, "EntityTooLarge"),
    (503, "SlowDown", Unavailable, "SlowDown"),
    (500, "InternalError", Unavailable, "InternalError"),
    (429, "TooManyRequests", Unavailable, "TooManyRequests"),
]


@pytest.mark.usefixtures("quick", "s3")
@pytest.mark.parametrize(("status", "code", "kind", "text"), WRONG, ids=[one[1] for one in WRONG])
def test_what_is_wrong_is_said(
    ill: Callable[..., str], status: int, code: str, kind: type[DstackError], text: str
) -> None:
    url = ill(status, code, headers={"x-amz-bucket-region": "eu-central-1", "Retry-After": "7"})
    with pytest.raises(kind, match=text) as caught:
        opened(url).put("k", b"x")
    assert "testsecret" not in str(caught.value)
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after == 7


@pytest.mark.usefixtures("quick", "s3")
def test_a_server_without_conditions_is_asked_first(ill: Callable[..., str]) -> None:
    assert opened(ill(501, "NotImplemented", only="If-None-Match")).put("k", b"x", if_absent=True)


@pytest.mark.usefixtures("quick")
def test_a_server_that_hangs_is_given_up(s3: S3Server) -> None:
    with Hanging() as port, pytest.raises(Unavailable, match="can't be reached"):
        opened(s3.url("bucket", endpoint_url=f"http://127.0.0.1:{port}")).put("k", b"x")


class Hanging:
    """Accepts, and says nothing."""

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_who_has_no_keys_is_told_where_to_put_them(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.url()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3_client._client.cache_clear()
    try:
        with pytest.raises(Failed, match=r"no credentials .*AWS_ACCESS_KEY_ID"):
            opened(url).put("k", b"x")
    finally:
        s3_client._client.cache_clear()


def test_a_wrong_secret_and_a_missing_bucket_are_told_by_the_real_server(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Failed, match="no such bucket"):
        open_store(s3.url("not-there"), "r1", create=True)
    url = s3.url()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3_client._client.cache_clear()
    try:
        with pytest.raises(Failed, match="refuses the secret key"):
            open_store(url, "r1", create=True)
    finally:
        s3_client._client.cache_clear()


def test_a_bucket_is_ours_by_its_marker(s3: S3Server) -> None:
    url = s3.url(prefix="team/dstack")
    with pytest.raises(Failed, match="holds nothing of this repository"):
        open_store(url, "r1", create=False)
    open_store(url, "r1", create=True).put("k", b"x")
    assert open_store(url, "r1", create=True).get("k", limit=9) == b"x"
    assert set(objects(s3, parse_place(url).bucket)) == {"team/dstack/r1/dstack-store.json", "team/dstack/r1/k"}


def test_a_small_object_is_one_request(s3: S3Server, bucket: str, wire: Forwarder) -> None:
    store = through(wire, s3, bucket)
    store.put("k", b"x")
    asked: list[str] = []
    store._client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.method))
    store.put("k", b"x" * 1000)
    store.get("k", limit=1000)
    store.put("new", b"x", if_absent=True)
    assert asked == ["PUT", "GET", "PUT"]


def test_options_of_the_config_become_part_of_the_url() -> None:
    options = {"endpoint_url": "https://s3.example.org", "region": None, "storage_class": "STANDARD_IA"}
    whole = "s3://bucket/p?endpoint_url=https://s3.example.org&storage_class=STANDARD_IA"
    assert store_url("s3://bucket/p", options) == whole
    assert store_url(whole, {"endpoint_url": "https://else", "region": "eu"}) == whole.replace(
        "&storage", "&region=eu&storage"
    )
    assert parse_place(whole).endpoint_url == "https://s3.example.org"
    assert store_url("file:///data/a%20b", options) == "file:///data/a%20b"


def test_storage_class_is_for_artifacts_and_encryption_for_all(s3: S3Server, bucket: str) -> None:
    store = opened(s3.url(bucket, storage_class="STANDARD_IA", encryption="AES256"))
    seen: list[dict[str, str]] = []
    store._client.meta.events.register(
        "before-call.s3", lambda params, **_: seen.append({k.lower(): v for k, v in params["headers"].items()})
    )
    store.put("objects/a", b"x")
    store.put("runners/b", b"x")
    assert [one.get("x-amz-storage-class") for one in seen] == ["STANDARD_IA", None]
    assert [one.get("x-amz-server-side-encryption") for one in seen] == ["AES256", "AES256"]
    assert store.get("objects/a", limit=9) == b"x"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("size", [9, 9 * MIB])
@pytest.mark.parametrize("key", ["logs/a", "objects/a"])
def test_what_is_altered_on_the_way_is_noticed_unless_who_reads_compares_its_sha256(
    s3: S3Server, bucket: str, key: str, size: int
) -> None:
    store = opened(s3.url(bucket))
    store._put_object(key, store._name(key), b"x" * size)
    asked: list[str] = []

    def alter(request: Any, **_: object) -> Any:  # noqa: ANN401 (the library's own)
        true = urllib3.request("GET", request.url, headers=dict(request.headers), preload_content=False)
        asked.append(true.headers.get("x-amz-checksum-crc32", ""))
        body = urllib3.HTTPResponse(io.BytesIO(b"x" * (size - 1) + b"y"), true.headers, preload_content=False)
        return AWSResponse(request.url, true.status, true.headers, body)  # type: ignore[arg-type]

    store._client.meta.events.register("before-send.s3.GetObject", alter)
    try:
        if key == "logs/a":
            with pytest.raises(Unavailable):
                read(store, key)
        else:
            assert read(store, key) == b"x" * (size - 1) + b"y"
    finally:
        s3_client._client.cache_clear()
    assert [bool(one) for one in asked] == [key == "logs/a"] * len(asked)
    assert len(asked) == (5 if (key, size) == ("logs/a", 9) else 1)


def test_a_store_that_has_moved_is_found_however_often_it_did() -> None:
    stores = {"s3://a/p": "s3://b/p?region=eu", "s3://b/p?region=eu": "file:///c", "file:///x": "file:///y"}
    assert moved(stores, "s3://a/p?endpoint_url=http://here") == "file:///c"
    assert moved(stores, "file:///other") == "file:///other"
    assert moved({"file:///x": "file:///y", "file:///y": "file:///x"}, "file:///x") in ("file:///x", "file:///y")
