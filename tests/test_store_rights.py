"""Rights in a bucket that are given one by one: each that is missing is named as policies write it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli.checks import Check, Result, store_check
from dstack.model.errors import Failed
from dstack.model.s3_place import parse_place
from dstack.store.s3 import S3Store
from dstack.store.s3_errors import right_to
from dstack.store.store import Granted
from tests.s3_server import S3Server, objects
from tests.sources import Bytes

LARGE = 9 * 1024 * 1024


class SeenOf:
    """What the check needs of a look at the state remote."""

    def __init__(self, store: S3Store) -> None:
        self.store_url = store.url
        self._store = store

    def store(self) -> S3Store:
        return self._store


@contextmanager
def without(store: S3Store, *operations: str) -> Iterator[None]:
    """A server whose policy doesn't grant these: it answers as Amazon's does, and does nothing."""

    def refuse(params: Any, model: Any, **_: object) -> None:  # noqa: ANN401, ARG001 (the library's own)
        answer: Any = {
            "Error": {"Code": "AccessDenied", "Message": "not authorized"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }
        raise ClientError(answer, model.name)

    events = store._client.meta.events
    for operation in operations:
        events.register(f"before-call.s3.{operation}", refuse)
    try:
        yield
    finally:
        for operation in operations:
            events.unregister(f"before-call.s3.{operation}", refuse)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def store(s3: S3Server, bucket: str) -> S3Store:
    url = s3.url(bucket)
    return S3Store(parse_place(url), url=url)


def checked(store: S3Store) -> Check:
    return store_check(SeenOf(store))  # type: ignore[arg-type]


def left(s3: S3Server, bucket: str) -> tuple[int, int]:
    """Objects, and uploads that were begun and not ended."""
    return len(objects(s3, bucket)), len(s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def test_who_may_do_all_is_good_and_nothing_is_left_behind(s3: S3Server, bucket: str, store: S3Store) -> None:
    assert isinstance(store, Granted)
    assert checked(store).result is Result.GOOD
    assert left(s3, bucket) == (0, 0)


@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("AbortMultipartUpload", "s3:AbortMultipartUpload"),
        ("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("ListParts", "s3:ListMultipartUploadParts"),
    ],
)
def test_a_right_that_is_a_convenience_is_named(
    s3: S3Server, bucket: str, store: S3Store, operation: str, right: str
) -> None:
    with without(store, operation):
        check = checked(store)
    assert (check.result, right in check.text) == (Result.ODD, True), check
    assert left(s3, bucket) == (0, 0)


@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("CreateMultipartUpload", "s3:PutObject"),
        ("PutObject", "s3:PutObject"),
        ("GetObject", "s3:GetObject"),
        ("ListObjectsV2", "s3:ListBucket"),
        ("DeleteObject", "s3:DeleteObject"),
    ],
)
def test_a_right_that_must_be_there_is_named(store: S3Store, operation: str, right: str) -> None:
    with without(store, operation):
        check = checked(store)
    assert (check.result, f"give this key the right {right}" in check.text) == (Result.BAD, True), check


def test_every_right_has_the_name_that_policies_give_it() -> None:
    assert right_to("AbortMultipartUpload") == "s3:AbortMultipartUpload"
    assert right_to("HeadObject") == "s3:GetObject"


@pytest.mark.parametrize("operation", ["ListMultipartUploads", "ListParts", "AbortMultipartUpload"])
def test_large_objects_go_up_without_the_convenience(store: S3Store, operation: str) -> None:
    def breaks(_size: int) -> None:
        msg = "the cable"
        raise ConnectionError(msg)

    send: Callable[..., bool] = store.put
    with without(store, operation):
        with pytest.raises(Exception, match="the cable"):
            send("objects/x", Bytes(bytes(LARGE)), sent=breaks)
        assert send("objects/x", Bytes(bytes(LARGE)))
    head = store.head("objects/x")
    assert head is not None
    assert head.size == LARGE


def test_without_the_right_to_write_a_large_object_is_refused_by_name(store: S3Store) -> None:
    with without(store, "CreateMultipartUpload"), pytest.raises(Failed, match="s3:PutObject"):
        store.put("objects/x", Bytes(bytes(LARGE)))
