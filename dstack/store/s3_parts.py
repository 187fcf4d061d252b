"""A large object goes up in parts, several at once; an upload that was cut off is found, and goes on where it was."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from zlib_ng.zlib_ng import crc32

from dstack.model.errors import DstackError, Unavailable
from dstack.store import parallel, s3_errors
from dstack.store.store import Sent, Source

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, PartTypeDef

MIB = 1024 * 1024
PART = 8 * MIB
MOST_PARTS = 9_000
WIDTH = 8


class Target(NamedTuple):
    """Where an object goes: `name` is its whole key in the bucket, `headers` those of CreateMultipartUpload."""

    client: "S3Client"
    bucket: str
    name: str
    headers: dict[str, str]
    url: str


class Part(NamedTuple):
    """`number` counts from 1."""

    number: int
    start: int
    size: int


def parts_of(size: int) -> Iterator[Part]:
    """The same for the same size, always: an upload can then go on where another one stopped."""
    length = max(PART, -(-size // (MOST_PARTS * MIB)) * MIB)
    for number, start in enumerate(range(0, size, length), 1):
        yield Part(number, start, min(length, size - start))


def upload(target: Target, source: Source, room: BoundedSemaphore, *, sent: Sent, if_absent: bool) -> bool:
    """Upload it. `room` bounds how many parts are in memory. False where `if_absent` and it is there already.

    Raises what the library raises, and Unavailable where somebody else ended the upload meanwhile.
    """
    upload_id, arrived = _unfinished(target) or (_begun(target), {})
    done: dict[int, CompletedPartTypeDef] = {}

    def send(part: Part) -> None:
        with room:
            data = source.read(part.start, part.size)
            there = arrived.get(part.number)
            if there is None or not _is_same(there, data):
                done[part.number] = _sent(target, upload_id, part, data)
            else:
                done[part.number] = _completed(part.number, there)
            del data
        sent(part.size)

    try:
        parallel.each(parts_of(source.size), send, width=WIDTH)
    except (BotoCoreError, ClientError, ConnectionError, DstackError, TimeoutError) as error:
        if isinstance(error, ClientError) and s3_errors.code_of(error) == "NoSuchUpload":
            return _ended_by_another(target, source.size)
        raise
    except Exception:
        # The source or who watches gave up: nobody will go on with this one.
        with suppress(Exception):
            target.client.abort_multipart_upload(Bucket=target.bucket, Key=target.name, UploadId=upload_id)
        raise
    return _complete(target, upload_id, [done[number] for number in sorted(done)], source.size, if_absent=if_absent)


def _unfinished(target: Target) -> "tuple[str, dict[int, PartTypeDef]] | None":
    """The newest upload of this object that was begun and not ended, with its parts."""
    try:
        answer = target.client.list_multipart_uploads(Bucket=target.bucket, Prefix=target.name)
    except ClientError as error:
        if s3_errors.code_of(error) in s3_errors.REFUSED or s3_errors.is_unknown_request(error):
            return None  # it can't be resumed, but it can be sent
        raise
    found = [one for one in answer.get("Uploads", []) if one.get("Key") == target.name and one.get("UploadId")]
    if not found:
        return None
    upload_id = max(found, key=lambda one: one["Initiated"])["UploadId"]
    pages = target.client.get_paginator("list_parts").paginate(
        Bucket=target.bucket, Key=target.name, UploadId=upload_id
    )
    try:
        return upload_id, {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
    except ClientError as error:
        if s3_errors.code_of(error) in ("NoSuchUpload", *s3_errors.GONE, *s3_errors.REFUSED):
            return None
        raise


def _begun(target: Target) -> str:
    answer = target.client.create_multipart_upload(Bucket=target.bucket, Key=target.name, **target.headers)  # type: ignore[arg-type]
    return answer["UploadId"]


def _is_same(there: "PartTypeDef", data: bytes) -> bool:
    """Whether the part that has arrived is this one, by a digest of it that the server tells."""
    if there.get("Size") != len(data):
        return False
    if checksum := there.get("ChecksumCRC32"):
        return checksum == base64.b64encode(crc32(data).to_bytes(4, "big")).decode()
    return there.get("ETag", "").strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sent(target: Target, upload_id: str, part: Part, data: bytes) -> "CompletedPartTypeDef":
    answer = target.client.upload_part(
        Bucket=target.bucket,
        Key=target.name,
        UploadId=upload_id,
        PartNumber=part.number,
        Body=data,
        ChecksumCRC32=base64.b64encode(crc32(data).to_bytes(4, "big")).decode(),
    )
    return _completed(part.number, answer)


def _completed(number: int, answer: object) -> "CompletedPartTypeDef":
    told: dict[str, str] = answer if isinstance(answer, dict) else {}
    completed: CompletedPartTypeDef = {"PartNumber": number, "ETag": told["ETag"]}
    if checksum := told.get("ChecksumCRC32"):
        completed["ChecksumCRC32"] = checksum
    return completed


def _complete(
    target: Target, upload_id: str, parts: "list[CompletedPartTypeDef]", size: int, *, if_absent: bool
) -> bool:
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    try:
        target.client.complete_multipart_upload(
            Bucket=target.bucket,
            Key=target.name,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            **condition,  # type: ignore[arg-type]
        )
    except ClientError as error:
        if s3_errors.code_of(error) in s3_errors.EXISTS:
            return False
        if s3_errors.code_of(error) == "NoSuchUpload":
            return _ended_by_another(target, size)
        raise
    return True


def _ended_by_another(target: Target, size: int) -> bool:
    """Two who upload the same share one upload; whoever ends it, it is there then. So it is after a lost answer."""
    try:
        if target.client.head_object(Bucket=target.bucket, Key=target.name)["ContentLength"] == size:
            return True
    except ClientError as error:
        if s3_errors.code_of(error) not in s3_errors.GONE:
            raise
    msg = f"the upload of {target.name} to the store {target.url} was ended by somebody else: it is begun again"
    raise Unavailable(msg)
