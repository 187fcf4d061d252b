"""Tries what a large upload does in a bucket beside sending its parts: begin, be found, be told of, be thrown away."""

from collections.abc import Callable

from botocore.exceptions import ClientError

from dstack.store import s3_errors
from dstack.store.s3_parts import Target


def lacking(target: Target) -> tuple[str, ...]:
    """Rights that are a convenience and are not given, by their names. Leaves nothing in the bucket.

    Raises what the library raises, where large objects can't be sent at all.
    """
    client, bucket, name = target.client, target.bucket, target.name
    upload_id = client.create_multipart_upload(Bucket=bucket, Key=name, **target.headers)["UploadId"]  # type: ignore[arg-type]
    tries: tuple[Callable[[], object], ...] = (
        lambda: client.list_multipart_uploads(Bucket=bucket, Prefix=name),
        lambda: client.list_parts(Bucket=bucket, Key=name, UploadId=upload_id),
        lambda: client.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=upload_id),
    )
    refused = tuple(right for attempt in tries if (right := _refused(attempt)))
    if s3_errors.right_to("AbortMultipartUpload") in refused:
        _end(target, upload_id)
    return refused


def _refused(attempt: Callable[[], object]) -> str:
    """The right that it lacks; empty where it has it, or the server doesn't know the request."""
    try:
        attempt()
    except ClientError as error:
        if s3_errors.code_of(error) in s3_errors.REFUSED:
            return s3_errors.right_to(error.operation_name)
        if not s3_errors.is_unknown_request(error):
            raise
    return ""


def _end(target: Target, upload_id: str) -> None:
    """What can't be thrown away would stay there for ever: make an object of it, and delete that."""
    client, bucket, name = target.client, target.bucket, target.name
    part = client.upload_part(Bucket=bucket, Key=name, UploadId=upload_id, PartNumber=1, Body=b"probe")
    client.complete_multipart_upload(
        Bucket=bucket,
        Key=name,
        UploadId=upload_id,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    client.delete_object(Bucket=bucket, Key=name)
