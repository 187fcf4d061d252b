"""A store in a bucket of an S3 server, any server."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from zlib_ng.zlib_ng import crc32

from dstack.model.errors import Unavailable
from dstack.model.s3_place import Place
from dstack.store import s3_errors, s3_parts, s3_rights, streams
from dstack.store.key import is_name, split_key, split_prefix
from dstack.store.s3_client import client_of
from dstack.store.s3_errors import explained
from dstack.store.store import Head, Sent, Source, unwatched

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

T = TypeVar("T")

# Above it an object goes up in parts.
WHOLE = 8 * 1024 * 1024
# So many bodies of up to WHOLE are in memory at once, of all threads together.
BODIES = 8
SMALL = 256 * 1024
TRIES = 5
# Named by the SHA-256 that whoever reads them compares.
_ARTIFACTS = ("objects/", "manifests/")


class S3Store:
    """A `Store` whose objects are those of a bucket below a prefix. For many threads at once."""

    def __init__(self, place: Place, *, url: str, within: str = "") -> None:
        """`within`: the part of it below the place's prefix; empty, or ending in `/`. Nothing is asked yet."""
        self.url = url
        self.width = 16
        self._place = place
        self._base = place.prefix + within
        self._hashed = tuple(self._base + prefix for prefix in _ARTIFACTS)
        self._room = BoundedSemaphore(BODIES)
        with explained(url, "anything"):
            self._client, self._clock = client_of(place)

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        """See Store. An answer that is lost may make `if_absent` say False for what was just stored."""
        name = self._name(key)
        size = len(data) if isinstance(data, bytes) else data.size
        if not isinstance(data, bytes) and size > WHOLE:
            if if_absent and self.head(key) is not None:
                return False
            target = s3_parts.Target(self._client, self._place.bucket, name, self._headers(key), self.url)
            with explained(self.url, key):
                return s3_parts.upload(target, data, self._room, sent=sent, if_absent=if_absent)
        if size <= SMALL:
            done = self._put(key, name, data, if_absent=if_absent)
        else:
            with self._room:
                done = self._put(key, name, data, if_absent=if_absent)
        if done:
            sent(size)
        return done

    def get(self, key: str, *, limit: int) -> bytes | None:
        """See Store."""
        return streams.whole(self.open(key), key, self.url, limit=limit)

    def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
        """See Store. A stream that breaks off is taken up where it was, a few times."""
        name = self._name(key)
        if size == 0:
            return None if self.head(key) is None else io.BytesIO()
        with explained(self.url, key):
            reading = _Reading(lambda at, end, etag: self._ask(name, at, end, etag), start, size)
            if not reading.begin():
                return None
        return cast("BinaryIO", _Explained(reading, self.url, key))

    def head(self, key: str) -> Head | None:
        """See Store."""
        name = self._name(key)
        with explained(self.url, key):
            answer = _or_none(lambda: self._client.head_object(Bucket=self._place.bucket, Key=name))
        return (
            None
            if answer is None
            else Head(key, answer["ContentLength"], answer["LastModified"], answer.get("ETag", ""))
        )

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        """See Store."""
        split_prefix(prefix)
        more = {"StartAfter": self._base + after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._place.bucket,
            Prefix=self._base + prefix,
            **more,  # type: ignore[arg-type]
        )
        with explained(self.url, prefix):
            for page in pages:
                for one in page.get("Contents", []):
                    key = one["Key"].removeprefix(self._base)
                    if key > after and all(is_name(part) for part in key.split("/")):
                        yield Head(key, one["Size"], one["LastModified"], one.get("ETag", ""))

    def delete(self, key: str) -> None:
        """See Store."""
        name = self._name(key)
        with explained(self.url, key):
            self._client.delete_object(Bucket=self._place.bucket, Key=name)

    def now(self) -> datetime:
        """See Store: the server's clock, as its last answer told it."""
        if not self._clock.known:
            with explained(self.url, "the clock"), suppress(ClientError):
                self._client.head_bucket(Bucket=self._place.bucket)
        return self._clock.now()

    def lacking(self, key: str) -> tuple[str, ...]:
        """See Granted."""
        target = s3_parts.Target(self._client, self._place.bucket, self._name(key), self._headers(key), self.url)
        with explained(self.url, key):
            return s3_rights.lacking(target)

    def _name(self, key: str) -> str:
        split_key(key)
        return self._base + key

    def _headers(self, key: str) -> dict[str, str]:
        place = self._place
        headers = {"ServerSideEncryption": place.encryption, "SSEKMSKeyId": place.kms_key}
        if key.startswith(_ARTIFACTS):
            headers["StorageClass"] = place.storage_class
        return {name: value for name, value in headers.items() if value}

    def _put(self, key: str, name: str, data: bytes | Source, *, if_absent: bool) -> bool:
        body = data if isinstance(data, bytes) else data.read(0, data.size)
        with explained(self.url, key):
            if not if_absent:
                self._put_object(key, name, body)
                return True
            return self._put_if_absent(key, name, body)

    def _put_if_absent(self, key: str, name: str, body: bytes) -> bool:
        for _ in range(TRIES):
            try:
                self._put_object(key, name, body, IfNoneMatch="*")
            except ClientError as error:
                code = s3_errors.code_of(error)
                if code in s3_errors.EXISTS:
                    return False
                if code in ("ConditionalRequestConflict", "409"):
                    continue  # another one is being written just now
                if s3_errors.is_unknown_request(error):
                    return self._put_unless_seen(key, name, body)
                raise
            return True
        msg = f"the store {self.url} can't say who wrote {key} first: it is tried again"
        raise Unavailable(msg)

    def _put_unless_seen(self, key: str, name: str, body: bytes) -> bool:
        """For servers without conditions: of two at the same instant both win. `dstack doctor` tells of it."""
        if self.head(key) is not None:
            return False
        self._put_object(key, name, body)
        return True

    def _put_object(self, key: str, name: str, body: bytes, **condition: str) -> None:
        # Told beforehand: as a trailer, which not every server knows, it would cost a copy of the body.
        check = base64.b64encode(crc32(body).to_bytes(4, "big")).decode()
        options: dict[str, Any] = {**self._headers(key), **condition, "ChecksumCRC32": check}
        self._client.put_object(Bucket=self._place.bucket, Key=name, Body=body, **options)

    def _ask(self, name: str, start: int, end: int | None, etag: str) -> "GetObjectOutputTypeDef | None":
        options: dict[str, str] = {"IfMatch": etag} if etag else {}
        if not name.startswith(self._hashed):
            options["ChecksumMode"] = "ENABLED"
        if start or end is not None:
            options["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        return _or_none(lambda: self._client.get_object(Bucket=self._place.bucket, Key=name, **options))  # type: ignore[arg-type]


Ask = Callable[[int, int | None, str], "GetObjectOutputTypeDef | None"]


class _Reading:
    """The bytes of an object from `at` on. What breaks off is asked for again, of the very same object."""

    def __init__(self, ask: Ask, at: int, size: int | None) -> None:
        self._ask, self._start, self._at = ask, at, at
        self._asked = self._end = None if size is None else at + size
        self._etag, self._tries = "", TRIES
        self._body: Any = None

    def begin(self) -> bool:
        """Whether there is such an object."""
        try:
            # Of a whole object alone does a server tell the checksum.
            answer = self._ask(self._at, self._asked if self._at == self._start else self._end, self._etag)
        except ClientError as error:
            if s3_errors.code_of(error) in ("InvalidRange", "416"):
                self._end = self._at  # nothing is there from here on
                return True
            raise
        if answer is None:
            return False
        self._etag, self._body = answer["ETag"], answer["Body"]
        self._end = self._at + answer["ContentLength"]
        return True

    def read(self, size: int) -> bytes:
        """Some of them; none at the end."""
        while self._end is not None and self._at < self._end:
            try:
                data = self._some(min(size, self._end - self._at))
            except (BotoCoreError, ConnectionError, TimeoutError, OSError) as error:
                self.close()
                self._tries -= 1
                # What was handed out already can't be called back.
                if self._tries <= 0 or (isinstance(error, FlexibleChecksumError) and self._at > self._start):
                    raise
                continue
            self._at += len(data)
            return data
        return b""

    def _some(self, size: int) -> bytes:
        """At least one. Raises ConnectionError where the answer ended too soon."""
        there = self._body is not None or self.begin()
        data: bytes = self._body.read(size) if there else b""
        if not data:
            msg = "the server ended its answer too soon" if there else "the object has gone meanwhile"
            raise ConnectionError(msg)
        if self._at + len(data) == self._end:
            self._body.read(1)  # the library compares the checksum when it meets the end
        return data

    def close(self) -> None:
        """Let go of the connection; it may be in the middle of its answer."""
        if self._body is not None:
            self._body.close()
        self._body = None


class _Explained(io.BufferedIOBase):
    """A stream whose errors are told in the store's words."""

    def __init__(self, reading: _Reading, url: str, key: str) -> None:
        self._reading, self._url, self._key = reading, url, key

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        pieces, left = [], size if size is not None and size >= 0 else None
        with explained(self._url, self._key):
            while left is None or left > 0:
                data = self._reading.read(WHOLE if left is None else min(left, WHOLE))
                if not data:
                    break
                pieces.append(data)
                left = None if left is None else left - len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._reading.close()
        super().close()


def _or_none(ask: Callable[[], T]) -> T | None:
    """The answer; None where there is no such object."""
    try:
        return ask()
    except ClientError as error:
        if s3_errors.code_of(error) in s3_errors.GONE:
            return None
        raise
