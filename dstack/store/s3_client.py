"""The library's client for a place, made once: it costs a third of a second, and may be used by many threads."""

import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from dstack.model.s3_place import Place

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_SECONDS = 5
READ_SECONDS = 30
TRIES = 4
CONNECTIONS = 48

_MAKING = threading.Lock()


class Clock:
    """The server's clock, learnt from the dates of its answers."""

    def __init__(self) -> None:
        """Not known yet."""
        self._ahead = datetime.now(UTC) - datetime.now(UTC)
        self.known = False

    def learn(self, date: str | None) -> None:
        """Take in the `Date` of an answer that has just come."""
        try:
            told = parsedate_to_datetime(date or "")
        except ValueError:
            return
        if told.tzinfo is not None:
            self._ahead = told - datetime.now(UTC)
            self.known = True

    def now(self) -> datetime:
        """By the server's clock, to a second."""
        return datetime.now(UTC) + self._ahead


def client_of(place: Place) -> "tuple[S3Client, Clock]":
    """The client, and the clock it keeps. Raises what the library raises. Credentials come by the AWS chain."""
    with _MAKING:
        return _client(place.endpoint_url, place.region, place.addressing)


@cache
def _client(endpoint_url: str, region: str, addressing: str) -> "tuple[S3Client, Clock]":
    settings = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        # Who reads says where it is wanted: what is known by its SHA-256 would be summed up twice.
        response_checksum_validation="when_required",
        max_pool_connections=CONNECTIONS,
        # Each body carries a checksum, and all content is known by its SHA-256: one more of them only costs time.
        s3={"addressing_style": addressing, "payload_signing_enabled": False},  # type: ignore[arg-type]
        user_agent_extra="dstack",
    )
    session = boto3.session.Session()
    # A server of one's own doesn't care for the region, but its signature needs one.
    known = region or session.region_name or ("us-east-1" if endpoint_url else None)
    client: S3Client = session.client("s3", endpoint_url=endpoint_url or None, region_name=known, config=settings)
    clock = Clock()

    def learn(http_response: Any, **_: object) -> None:  # noqa: ANN401 (the library's own)
        clock.learn(http_response.headers.get("date") if http_response is not None else None)

    client.meta.events.register("after-call.s3", learn)
    return client, clock
