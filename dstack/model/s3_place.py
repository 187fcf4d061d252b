"""Where an S3 store is and how it is written, all in its URL: `s3://bucket/prefix?endpoint_url=…&region=…`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from dstack.model.errors import Invalid

OPTIONS = ("endpoint_url", "region", "addressing", "encryption", "kms_key", "storage_class")
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=,@+/-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`prefix` is empty or ends in `/`. `addressing`: `auto`, `path` or `virtual`. The rest is S3's own, or empty."""

    bucket: str
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""
    addressing: str = "auto"
    encryption: str = ""
    kms_key: str = ""
    storage_class: str = ""


def parse_place(url: str) -> Place:
    """Raises Invalid, with what would be right."""
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    if "@" in bucket:
        msg = "a store's URL holds no keys: it is shared by all. Keys come from the environment or ~/.aws/credentials"
        raise Invalid(msg)
    odd = prefix and (not _PREFIX.fullmatch(prefix) or {"", ".", ".."} & set(prefix.split("/")))
    if not _BUCKET.fullmatch(bucket) or odd or parts.fragment:
        msg = f"{url!r} names no bucket: say s3://bucket/prefix (lower-case letters, digits, . and -)"
        raise Invalid(msg)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - set(OPTIONS):
        msg = f"{url!r}: {', '.join(sorted(unknown))} is no option of a store (there are {', '.join(OPTIONS)})"
        raise Invalid(msg)
    place = Place(bucket=bucket, prefix=f"{prefix}/" if prefix else "", **options)
    _check(place)
    return place


def store_url(store: str, options: dict[str, str | None]) -> str:
    """The whole URL of a store: with those of the options that the URL doesn't name itself. Others stay as they are."""
    parts = urlsplit(store)
    if parts.scheme != "s3":
        return store
    named = dict(parse_qsl(parts.query, keep_blank_values=True))
    query = {key: value for key, value in ({**options, **named}).items() if value}
    return parts._replace(query=urlencode(sorted(query.items()), quote_via=quote, safe=":/")).geturl()


def moved(stores: Mapping[str, str], url: str) -> str:
    """Where what was kept at `url` lies now: `stores` maps old URLs (with or without their options) to new ones."""
    for _ in stores:
        new = stores.get(url) or stores.get(url.partition("?")[0])
        if new is None:
            break
        url = new
    return url


def _check(place: Place) -> None:
    if place.endpoint_url and urlsplit(place.endpoint_url).scheme not in ("http", "https"):
        msg = f"endpoint_url is {place.endpoint_url!r}: say https://host, or http://host:port"
        raise Invalid(msg)
    if "@" in urlsplit(place.endpoint_url).netloc:
        msg = "endpoint_url holds no keys: they come from the environment or ~/.aws/credentials"
        raise Invalid(msg)
    if place.addressing not in ("auto", "path", "virtual"):
        msg = f"addressing is {place.addressing!r}: say path (endpoint/bucket) or virtual (bucket.endpoint)"
        raise Invalid(msg)
    if place.encryption not in ("", *ENCRYPTIONS):
        msg = f"encryption is {place.encryption!r}: say one of {', '.join(ENCRYPTIONS)}"
        raise Invalid(msg)
