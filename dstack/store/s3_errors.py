"""What an S3 server or the library that talks to it says, in words for people: what is wrong there and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions

from dstack.model.errors import DstackError, Failed, Invalid, Unavailable

GONE = frozenset({"404", "NoSuchKey", "NotFound"})
EXISTS = frozenset({"412", "PreconditionFailed"})
REFUSED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"})
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "StorageFull", "InsufficientStorage", "ServiceQuotaExceeded"})
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_THROTTLING = frozenset({"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded"})
_PASSING = _THROTTLING | {"RequestTimeout", "429"}
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_LASTING_STATUS = range(400, 500)
_PASSING_STATUS = frozenset({408, 409, 425, 429})
# Where the right isn't named like the request.
_RIGHTS = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
_NO_KEYS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.ProfileNotFound,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
_RENEW = "have it renewed, or look at the clock of this machine"
_ADDRESS = "give `endpoint_url` the name that it is for"
_TRUST = "let AWS_CA_BUNDLE name a file with the certificate of its authority, for every daemon and user"
_MISUSED = (exceptions.ParamValidationError, exceptions.InvalidRegionError, exceptions.UnknownEndpointError)
# What the library for TLS says, the most exact first; what is wrong; the way out.
_CERTIFICATE = (
    ("certificate has expired", "the certificate has expired", _RENEW),
    ("certificate is not yet valid", "the certificate isn't valid yet", _RENEW),
    ("doesn't match", "the certificate is for another host than that", _ADDRESS),
    ("Hostname mismatch", "the certificate is for another host than that", _ADDRESS),
    ("IP address mismatch", "the certificate is for another host than that", _ADDRESS),
    ("No such file or directory", "there is no file of authorities to trust for the certificate", _TRUST),
    ("no certificate or crl found", "there is no authority to trust in the file for the certificate", _TRUST),
    ("CERTIFICATE_VERIFY_FAILED", "nobody this machine trusts has signed the certificate", _TRUST),
)
_CHAIN = (
    "put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the environment, keys into ~/.aws/credentials (AWS_PROFILE "
    "chooses), or run where the machine has a role"
)


@contextmanager
def explained(url: str, key: str) -> Iterator[None]:
    """Translate what goes wrong while the store at `url` deals with `key`."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error, url, key) from error
    except exceptions.BotoCoreError as error:
        raise _unreached(error, url) from error
    except (ConnectionError, TimeoutError) as error:
        msg = f"the store {url} can't be reached: {error}"
        raise Unavailable(msg, away=True) from error


def code_of(error: exceptions.ClientError) -> str:
    """The server's word for what is wrong; of an answer without a body, its HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def right_to(operation: str) -> str:
    """The name of the right that a request needs, as policies of buckets write it.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
    """
    return f"s3:{_RIGHTS.get(operation, operation)}"


def is_unknown_request(error: exceptions.ClientError) -> bool:
    """Whether the server doesn't know what it was asked for."""
    return code_of(error) in ("NotImplemented", "501")


def _refused(error: exceptions.ClientError, url: str, key: str) -> DstackError:  # noqa: PLR0911 (a table)
    code, said = code_of(error), str(error.response.get("Error", {}).get("Message", ""))[:200]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = f"{code}: {said}" if said else code
    if code == "NoSuchBucket":
        return Failed(f"the store {url} has no such bucket: make it, or change `store` in the config ({told})")
    if code == "InvalidAccessKeyId":
        return Failed(f"the store {url} doesn't know this access key: {_CHAIN}; or the endpoint is another's ({told})")
    if code == "SignatureDoesNotMatch":
        return Failed(f"the store {url} refuses the secret key: it doesn't belong to the access key. {_CHAIN}")
    if code in _EXPIRED or code == "InvalidToken":
        return Failed(f"the store {url} says that the session token has expired or is wrong: log in again ({told})")
    if code == "RequestTimeTooSkewed":
        return Failed(f"the clock of this machine differs from the store's ({url}): set it (for example with NTP)")
    if code in _REGION:
        region = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        where = f"it is in {region}" if region else "the server names none"
        return Failed(f"the bucket of the store {url} is in another region ({where}): set `region` in the config")
    if code in _FULL:
        return Failed(f"the store {url} is full ({told}): free space there, or move it and change `store`")
    if code in REFUSED:
        doing, right = error.operation_name, right_to(error.operation_name)
        return Failed(f"the store {url} refuses {doing} of {key}: give this key the right {right} ({told})")
    if code in _PASSING | _DAMAGED or status in _PASSING_STATUS or status not in _LASTING_STATUS:
        text = f"the store {url} answers {told or status}: it is tried again"
        away = code not in _THROTTLING and status not in _PASSING_STATUS
        return Unavailable(text, retry_after=_wait(error), away=away)
    return Failed(f"the store {url} refuses {error.operation_name} of {key}: {told or status}")


def _wait(error: exceptions.ClientError) -> float | None:
    text = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _certificate(said: str) -> tuple[str, str] | None:
    """What is wrong with a certificate, and the way out; None where a connection only broke."""
    return next(((what, way) for word, what, way in _CERTIFICATE if word in said), None)


def _unreached(error: exceptions.BotoCoreError, url: str) -> DstackError:
    if isinstance(error, _NO_KEYS):
        return Failed(f"there are no credentials for the store {url} ({error}): {_CHAIN}")
    if isinstance(error, exceptions.SSLError) and (cause := _certificate(str(error))):
        return Failed(f"{cause[0]} of the store {url} ({error}): {cause[1]}")
    if isinstance(error, _MISUSED):
        return Invalid(f"the store {url} can't be asked: {error}")
    return Unavailable(f"the store {url} can't be reached: {error}", away=True)
