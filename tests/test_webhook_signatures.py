"""Whose delivery is believed: published vectors of each scheme, several secrets; what is refused, in which words."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.signatures import WINDOW_SECONDS, refusal

GITHUB = "It's a Secret to Everybody"
SIGNED_AT = 1614265330.0
STANDARD = {
    b"webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
    b"webhook-timestamp": b"1614265330",
    b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
STANDARD_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
GITLAB = {
    b"webhook-id": b"f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
    b"webhook-timestamp": b"1789000000",
    b"webhook-signature": b"v1,hjP1hkhJG9gz8OP3TACvr46NHv63dGzLKzEu2z/WicM=",
}
GITLAB_KEY = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
GITLAB_BODY = b'{"object_kind":"push"}'


@pytest.mark.parametrize(
    ("headers", "body", "secret"),
    [
        pytest.param(
            {b"x-hub-signature-256": b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
            b"Hello, World!",
            GITHUB,
            id="GitHub",
        ),
        pytest.param(
            {b"x-hub-signature": b"sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"},
            b"Hello World!",
            GITHUB,
            id="Bitbucket",
        ),
        pytest.param(
            {b"x-gitea-signature": b"d8f89f0618acd61fe621aa4e64078c0e2bca15d0b578b7f3eb734f55883c5320"},
            b'{"ref":"refs/heads/main"}',
            "secret",
            id="Gitea",
        ),
        pytest.param(
            {b"x-forgejo-signature": b"d8f89f0618acd61fe621aa4e64078c0e2bca15d0b578b7f3eb734f55883c5320"},
            b'{"ref":"refs/heads/main"}',
            "secret",
            id="Forgejo",
        ),
        pytest.param({b"x-gitlab-token": "pä55".encode()}, b"anything", "pä55", id="GitLab's token"),
    ],
)
def test_each_forges_vector_is_believed_and_nothing_near_it(
    headers: dict[bytes, bytes], body: bytes, secret: str
) -> None:
    assert refusal(headers, body, [secret], 0.0) == ""
    assert refusal(headers, body, ["other", secret], 0.0) == ""
    assert refusal(headers, body, [f"{secret}x"], 0.0) != ""
    assert refusal(headers, body, [], 0.0) != ""
    ((name, value),) = headers.items()
    for wrong in (b"", value[:-1], value + b"0", value.replace(b"5", b"6"), b"sha1=" + value, b"\xff\xfe"):
        assert refusal({name: wrong}, body, [secret], 0.0) != ""
    if name != b"x-gitlab-token":
        assert refusal(headers, body + b" ", [secret], 0.0) != ""


@pytest.mark.parametrize(
    ("headers", "body", "secret"),
    [(STANDARD, STANDARD_BODY, STANDARD_KEY), (GITLAB, GITLAB_BODY, GITLAB_KEY)],
)
def test_a_standard_webhook_is_believed_within_five_minutes(
    headers: dict[bytes, bytes], body: bytes, secret: str
) -> None:
    at = float(headers[b"webhook-timestamp"])
    for now in (at, at - WINDOW_SECONDS, at + WINDOW_SECONDS):
        assert refusal(headers, body, [secret], now) == ""
    for now in (at - WINDOW_SECONDS - 1, at + WINDOW_SECONDS + 1):
        assert "a replay, or a wrong clock" in refusal(headers, body, [secret], now)
    assert (
        refusal({**headers, b"webhook-timestamp": b"1"}, body, [secret], 1.0)
        == "no signature in webhook-signature matches"
    )
    assert refusal({**headers, b"webhook-id": b"msg_other"}, body, [secret], at) != ""


def test_one_good_signature_among_several_is_enough() -> None:
    good = STANDARD[b"webhook-signature"]
    other = base64.b64encode(bytes(32))
    headers = {**STANDARD, b"webhook-signature": b"v1," + other + b" v2,x v1a,x " + good}
    assert refusal(headers, STANDARD_BODY, ["old", STANDARD_KEY], SIGNED_AT) == ""
    many = {**STANDARD, b"webhook-signature": b"v1,x " * 100_000 + good}
    assert refusal(many, STANDARD_BODY, [STANDARD_KEY], SIGNED_AT) != ""


@pytest.mark.parametrize("at", [b"", b"-5", b"1e9", b"9" * 400, "١٦١٤٢٦٥٣٣٠".encode()])
def test_a_time_that_is_no_number_is_refused(at: bytes) -> None:
    problem = refusal({**STANDARD, b"webhook-timestamp": at}, STANDARD_BODY, [STANDARD_KEY], SIGNED_AT)
    assert problem == "webhook-id or webhook-timestamp is missing, or no number"


def test_a_secret_that_only_looks_like_a_signing_key_is_one_of_letters() -> None:
    looking = "whsec_not base64!"
    signed = b".".join((STANDARD[b"webhook-id"], STANDARD[b"webhook-timestamp"], STANDARD_BODY))
    made = base64.b64encode(hmac.digest(looking.encode(), signed, hashlib.sha256))
    headers = {**STANDARD, b"webhook-signature": b"v1," + made}
    assert refusal(headers, STANDARD_BODY, [looking], SIGNED_AT) == ""


def test_a_signed_time_isnt_evaded_by_a_token_beside_it() -> None:
    headers = {**STANDARD, b"x-gitlab-token": STANDARD_KEY.encode()}
    assert "replay" in refusal(headers, STANDARD_BODY, [STANDARD_KEY], SIGNED_AT + 1000)


def test_sha1_alone_and_no_signature_are_refused_with_the_reason() -> None:
    old = {b"x-hub-signature": b"sha1=" + hmac.digest(b"s", b"b", "sha1").hex().encode()}
    assert refusal(old, b"b", ["s"], 0.0) == "X-Hub-Signature is not by SHA-256, which is asked for"
    assert refusal({}, b"b", ["s"], 0.0) == "it carries no signature: the webhook has no secret at the forge"


@given(
    name=st.sampled_from(
        [b"x-hub-signature-256", b"x-hub-signature", b"x-gitea-signature", b"x-gitlab-token", b"webhook-signature"]
    ),
    value=st.binary(max_size=80),
    more=st.dictionaries(st.sampled_from([b"webhook-id", b"webhook-timestamp"]), st.binary(max_size=20)),
)
def test_whatever_stands_in_a_header_is_refused_in_words(name: bytes, value: bytes, more: dict[bytes, bytes]) -> None:
    assert refusal({**more, name: value}, b"{}", ["a secret of some length"], 0.0) != ""
