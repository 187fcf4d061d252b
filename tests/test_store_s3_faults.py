"""The S3 store and what goes wrong between question and answer; and how many requests a look at heartbeats costs."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from dstack.model.errors import Unavailable
from dstack.model.pool import Capacity, Heartbeat
from dstack.model.s3_place import parse_place
from dstack.store.heartbeats import Known, delete_runner, read_runners, write_runner
from dstack.store.s3 import S3Store
from tests.forwarder import Forwarder
from tests.s3_server import S3Server, objects
from tests.sources import Bytes

MIB = 1024 * 1024
KEY = "objects/large"
DATA = b"".join(bytes([number]) * MIB for number in range(24)) + b"end"


@pytest.fixture
def store(s3: S3Server) -> S3Store:
    url = s3.url()
    return S3Store(parse_place(url), url=url)


def beat(runner: str, beats: int) -> Heartbeat:
    return Heartbeat(
        runner=runner,
        instance="i1",
        start="s",
        beats=beats,
        polls=1,
        assignment="a" * 40,
        attempts={},
        free=Capacity(cpu=1.0, memory=1024),
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def read(store: S3Store) -> bytes:
    stream = store.open(KEY)
    assert stream is not None
    with stream as file:
        return file.read()


def asked_by(store: S3Store, call: Callable[[], object]) -> list[str]:
    """The methods of the requests it took."""
    asked: list[str] = []

    def note(request: Any, **_: object) -> None:  # noqa: ANN401 (the library's own)
        asked.append(request.method)

    store._client.meta.events.register("before-send.s3", note)
    try:
        call()
    finally:
        store._client.meta.events.unregister("before-send.s3", note)
    return asked


def test_a_look_at_heartbeats_reads_only_what_has_changed(store: S3Store) -> None:
    known: Known = {}
    for runner in ("lynx", "wolf", "fox"):
        write_runner(store, beat(runner, 1))
    assert asked_by(store, lambda: read_runners(store, known)) == ["GET"] * 4
    assert asked_by(store, lambda: read_runners(store, known)) == ["GET"]
    write_runner(store, beat("wolf", 2))  # within the same second, and of the same size
    assert asked_by(store, lambda: read_runners(store, known)) == ["GET"] * 2
    delete_runner(store, "fox", "i1")
    seen = read_runners(store, known).seen
    assert {who[0]: one.heartbeat.beats for who, one in seen.items()} == {"lynx": 1, "wolf": 2}
    assert set(known) == {"runners/lynx.i1.json", "runners/wolf.i1.json"}


@pytest.mark.parametrize("size", [1000, 5 * MIB, 9 * MIB], ids=["small", "whole", "in parts"])
def test_what_is_damaged_on_its_way_is_refused_by_the_server_and_may_be_sent_again(store: S3Store, size: int) -> None:
    data = bytes(size)

    def damage(request: Any, **_: object) -> None:  # noqa: ANN401 (the library's own)
        if request.method == "PUT":
            sent = request.body.read()
            request.body = sent[: len(sent) // 2] + b"?" + sent[len(sent) // 2 + 1 :]

    store._client.meta.events.register("before-send.s3", damage)
    with pytest.raises(Unavailable, match=r"the store s3://.* answers .* it is tried again"):
        store.put(KEY, Bytes(data))
    assert store.head(KEY) is None
    store._client.meta.events.unregister("before-send.s3", damage)
    store.put(KEY, Bytes(data))
    assert read(store) == data


def test_an_end_of_an_upload_that_is_said_twice_is_one_end(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, times = store._client.complete_multipart_upload, []

    def twice(**request: Any) -> Any:  # noqa: ANN401 (the library's own)
        complete(**request)
        times.append(1)
        return complete(**request)

    monkeypatch.setattr(store._client, "complete_multipart_upload", twice)
    assert store.put(KEY, Bytes(DATA))
    assert times == [1]
    assert read(store) == DATA


def test_an_upload_ended_by_another_is_no_loss(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = store._client.complete_multipart_upload

    def late(**request: Any) -> Any:  # noqa: ANN401 (the library's own)
        complete(**request)
        raise ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")

    monkeypatch.setattr(store._client, "complete_multipart_upload", late)
    assert store.put(KEY, Bytes(DATA))
    assert read(store) == DATA


def test_an_upload_that_somebody_threw_away_is_begun_again(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    send = store._client.upload_part

    def thrown_away(**request: Any) -> Any:  # noqa: ANN401 (the library's own)
        monkeypatch.setattr(store._client, "upload_part", send)
        store._client.abort_multipart_upload(**{name: request[name] for name in ("Bucket", "Key", "UploadId")})
        return send(**request)

    monkeypatch.setattr(store._client, "upload_part", thrown_away)
    with pytest.raises(Unavailable, match="begun again"):
        store.put(KEY, Bytes(DATA))
    assert store.head(KEY) is None
    assert store.put(KEY, Bytes(DATA))
    assert read(store) == DATA


def test_an_answer_that_is_lost_for_good_says_away_and_harms_nothing(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = store._client.complete_multipart_upload

    def lost(**request: Any) -> Any:  # noqa: ANN401 (the library's own)
        complete(**request)
        raise ReadTimeoutError(endpoint_url="http://there")

    monkeypatch.setattr(store._client, "complete_multipart_upload", lost)
    with pytest.raises(Unavailable, match="can't be reached"):
        store.put(KEY, Bytes(DATA))
    monkeypatch.setattr(store._client, "complete_multipart_upload", complete)
    assert not store.put(KEY, Bytes(DATA), if_absent=True)
    assert store.put(KEY, Bytes(DATA))
    assert read(store) == DATA


@pytest.mark.parametrize("code", ["AccessDenied", "NotImplemented"])
def test_who_may_not_list_uploads_sends_all(store: S3Store, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def refused(**_: Any) -> Any:  # noqa: ANN401 (the library's own)
        raise ClientError({"Error": {"Code": code}}, "ListMultipartUploads")

    monkeypatch.setattr(store._client, "list_multipart_uploads", refused)
    assert store.put(KEY, Bytes(DATA))
    assert read(store) == DATA


def test_a_server_killed_in_the_middle_of_an_upload_has_it_whole_at_last(s3: S3Server) -> None:
    bucket, wire = s3.bucket(), Forwarder(("127.0.0.1", s3.ports["s3"]))
    wire.rate = 4 * MIB
    url = s3.url(bucket, endpoint_url=f"http://127.0.0.1:{wire.port}")
    store = S3Store(parse_place(url), url=url)

    def again_and_again() -> bool:
        for _ in range(10):
            try:
                return store.put(KEY, Bytes(DATA))
            except Unavailable:
                time.sleep(0.2)
        return False

    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(again_and_again)
        while wire.upstream < 10 * MIB:
            assert not put.done()
            time.sleep(0.01)
        s3.kill()
        wire.rate = None
        s3.start()
        assert put.result()
    assert read(store) == DATA
    assert objects(s3, bucket) == {KEY: len(DATA)}
    wire.close()
