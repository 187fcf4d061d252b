"""The client against a forge that misbehaves, and what its answers mean."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.forge.answers import LONGEST, Absent, Denied, Head, asked_wait, error_of, exhausted
from dstack.forge.client import MOST_PAGES, REMEMBERED, REMEMBERED_SIZE, Client
from dstack.forge.exchange import LIMIT, open_http
from dstack.forge.forge import Forge, Hook
from dstack.forge.opening import forge_at
from dstack.model.errors import Failed, Unavailable
from dstack.model.forge import ForgeKind
from dstack.model.reports import CommitStatus
from dstack.model.verdicts import State
from tests.forge_server import TOKEN, FakeForge, Fault, plain_http, serving
from tests.tls import TlsFront, certified, trusting

COMMIT = "c" * 40
OLD, NEW = "0ld", "n3w"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STATUS = CommitStatus(
    commit=COMMIT, context="dstack/train", state=State.RUNNING, description="it is running", ref="main"
)


@pytest.fixture(params=list(ForgeKind))
def fake(request: pytest.FixtureRequest) -> Iterator[FakeForge]:
    with serving(request.param) as forge:
        yield forge


@pytest.fixture
def hub() -> Iterator[FakeForge]:
    with serving() as forge:
        yield forge


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with plain_http(0.5) as client:
        yield client


def client(forge: FakeForge, http: httpx.Client) -> Client:
    return Client(api=forge.api, headers={"Authorization": f"Bearer {TOKEN}"}, http=http, clock=lambda: NOW)


def opened(forge: FakeForge, http: httpx.Client, token: str = TOKEN) -> Forge:
    return forge_at(forge.place, token, http)


def test_a_status_goes_there_and_is_found_again(fake: FakeForge, http: httpx.Client) -> None:
    forge = opened(fake, http)
    for state in State:
        status = CommitStatus(commit=COMMIT, context=f"dstack/{state}", state=state, description="x" * 140, link="")
        forge.post(status)
        assert forge.statuses(COMMIT)[status.context] == forge.as_posted(status)


def test_the_latest_of_a_context_counts(fake: FakeForge, http: httpx.Client) -> None:
    forge = opened(fake, http)
    forge.post(STATUS)
    done = CommitStatus(
        commit=COMMIT, context=STATUS.context, state=State.SUCCESS, description="done", link="https://x/"
    )
    forge.post(done)
    assert forge.statuses(COMMIT) == {STATUS.context: forge.as_posted(done)}


def test_gitlab_is_not_asked_twice_for_the_state_it_is_in(http: httpx.Client) -> None:
    with serving(ForgeKind.GITLAB) as fake:
        forge = opened(fake, http)
        forge.post(STATUS)
        forge.post(STATUS)
        assert fake.states(COMMIT) == [("dstack/train", "running")]


def test_comments_are_written_changed_and_taken_away(fake: FakeForge, http: httpx.Client) -> None:
    forge = opened(fake, http)
    made = forge.add_comment(7, "one")
    forge.change_comment(7, made.id, "two")
    assert [(one.body, one.author) for one in forge.comments(7)] == [("two", forge.me())]
    forge.remove_comment(7, made.id)
    forge.remove_comment(7, made.id)
    assert forge.comments(7) == ()


def test_a_hook_asks_for_what_dstack_reads_over_tls_that_is_verified(fake: FakeForge, http: httpx.Client) -> None:
    forge = opened(fake, http)
    forge.add_hook(Hook(url="https://dstack.example.org/hooks/1", secret=OLD))
    (number,) = forge.hooks()
    forge.change_hook(number, Hook(url="https://dstack.example.org/hooks/1", secret=NEW))
    assert forge.hooks() == {number: "https://dstack.example.org/hooks/1"}
    hook = fake.hooks[number]
    if fake.kind is ForgeKind.GITLAB:
        assert (hook["token"], hook["enable_ssl_verification"]) == (NEW, True)
        assert hook["push_events"] is hook["tag_push_events"] is hook["merge_requests_events"] is True
    else:
        assert hook["config"]["secret"] == NEW
        assert hook["config"]["content_type"] == "json"
        assert hook["config"].get("insecure_ssl", "0") == "0"
        assert {"push", "create", "delete", "pull_request"} <= set(hook["events"])


def test_a_token_says_who_it_is_and_what_it_may(fake: FakeForge, http: httpx.Client) -> None:
    assert opened(fake, http).me() == "dstack-bot"
    assert "written to" in opened(fake, http).check()
    with pytest.raises(Denied, match="401"):
        opened(fake, http, "stolen").check()
    fake.nobodies.add(TOKEN)
    assert opened(fake, http).me() is None


def test_lists_are_read_page_by_page_and_not_for_ever(fake: FakeForge, http: httpx.Client) -> None:
    fake.page = 2
    for number in range(3 * MOST_PAGES):
        fake.say(7, str(number), "eve")
    assert len(opened(fake, http).comments(7)) == 2 * MOST_PAGES
    assert len(fake.asked) == MOST_PAGES


def test_a_forge_says_where_pull_requests_go(fake: FakeForge, http: httpx.Client) -> None:
    fake.page, fake.open = 2, {1: "main", 2: "release/1", 7: "main"}
    assert opened(fake, http).bases() == fake.open


def test_what_did_not_change_is_not_sent_again(fake: FakeForge, http: httpx.Client) -> None:
    forge = opened(fake, http)
    forge.post(STATUS)
    assert forge.statuses(COMMIT) == forge.statuses(COMMIT)
    assert fake.not_modified > 0
    forge.post(CommitStatus(commit=COMMIT, context="b", state=State.ERROR, description=""))
    assert set(forge.statuses(COMMIT)) == {"dstack/train", "b"}


def test_what_is_remembered_is_bounded(hub: FakeForge, http: httpx.Client) -> None:
    one = client(hub, http)
    for number in range(2 * REMEMBERED):
        hub.faults.append(Fault(status=200, headers={"ETag": f'"{number}"'}, body=b"{}"))
        one.get(f"/{number}", dict[str, object])
    hub.faults.append(Fault(status=200, headers={"ETag": '"large"'}, body=b'"' + b"x" * REMEMBERED_SIZE + b'"'))
    one.get("/large", str)
    assert len(one._pages) == REMEMBERED
    assert not any("large" in url for url in one._pages)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=502), "502"),
        (Fault(status=200, body=b"<html>sign in</html>"), "doesn't answer like a forge"),
        (Fault(status=200, body=b"[" * 100_000), "doesn't answer like a forge"),
        (Fault(status=200, body=b"null"), "doesn't answer like a forge"),
        (Fault(status=200, body=b'{"login": 7}'), "doesn't answer like a forge"),
        (Fault(status=200, body=b'{"login": "' + b"x" * LIMIT), "larger than"),
        (Fault(status=200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b"), "compresses"),
        (Fault(hang=True), "can't be reached"),
    ],
)
def test_a_forge_that_misbehaves_is_away(hub: FakeForge, http: httpx.Client, fault: Fault, words: str) -> None:
    hub.faults.append(fault)
    with pytest.raises(Unavailable, match=words):
        opened(hub, http).me()


def test_who_asks_to_wait_is_not_asked_again_until_then(hub: FakeForge, http: httpx.Client) -> None:
    one, ticks = client(hub, http), [100.0]
    one.ticks = lambda: ticks[0]
    hub.faults.append(Fault(status=429, headers={"Retry-After": "30"}))
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            one.get("/user", dict[str, object])
        assert caught.value.retry_after == 30
    assert len(hub.asked) == 1
    ticks[0] += 30
    assert one.get("/user", dict[str, object])["login"] == "dstack-bot"


def test_the_last_request_that_is_left_is_the_last_for_now(hub: FakeForge, http: httpx.Client) -> None:
    one, reset = client(hub, http), int(NOW.timestamp()) + 60
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset), "Date": "Mon, 23 Nov 2026 12:00:00 GMT"}
    hub.faults.append(Fault(status=200, headers=headers, body=b"{}"))
    assert one.get("/user", dict[str, object]) == {}
    with pytest.raises(Unavailable, match="wait"):
        one.get("/user", dict[str, object])
    assert len(hub.asked) == 1


def test_a_redirect_is_followed_on_the_same_host_alone(hub: FakeForge, http: httpx.Client) -> None:
    with serving() as other:
        hub.faults.append(Fault(status=307, headers={"Location": "/user"}))
        assert client(hub, http).get("/old", dict[str, object])["login"] == "dstack-bot"
        for url in (f"{other.address}/user", "https://evil.example.com/", "//[", "http://127.0.0.1:1/user"):
            hub.faults.append(Fault(status=302, headers={"Location": url}))
            with pytest.raises(Failed, match="redirects"):
                client(hub, http).get("/user", dict[str, object])
        hub.faults.extend(Fault(status=301, headers={"Location": "/user"}) for _ in range(9))
        with pytest.raises(Failed, match="circle"):
            client(hub, http).get("/user", dict[str, object])
        assert other.asked == []


def test_a_next_page_elsewhere_is_not_asked_for(hub: FakeForge, http: httpx.Client) -> None:
    with serving() as other:
        link = f'<{other.address}/user>; rel="next"'
        hub.faults.append(Fault(status=200, headers={"Link": link}, body=b"[]"))
        assert list(client(hub, http).pages("/user", list[object])) == [[]]
        assert other.asked == []


def test_the_token_is_in_no_message_and_no_log(
    hub: FakeForge, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = client(hub, http)
    said = [repr(one)]
    for fault in (
        Fault(status=401, body=f'{{"message": "bad token {TOKEN}"}}'.encode()),
        Fault(status=500, body=f'{{"error": "{TOKEN}"}}'.encode()),
        Fault(status=422, body=f'{{"message": ["{TOKEN}"]}}'.encode()),
        Fault(status=302, headers={"Location": "https://evil.example.com/"}),
        Fault(hang=True),
    ):
        hub.faults.append(fault)
        with pytest.raises((Failed, Unavailable)) as caught:
            one.get("/user", dict[str, object])
        said.append(str(caught.value))
    assert len(said) == 6
    assert TOKEN not in "".join([*said, caplog.text])


def test_an_authority_must_be_the_systems_or_the_one_that_is_named(
    hub: FakeForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, words in (("good", ""), ("expired", "expired"), ("host", "127.0.0.1"), ("stranger", "SSL_CERT_FILE")):
        front = TlsFront(int(hub.address.rpartition(":")[2]), certified("good" if kind == "stranger" else kind))
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        if kind != "stranger":
            monkeypatch.setenv("SSL_CERT_FILE", str(trusting(tmp_path / "authority.pem")))
        place = replace(hub.place, api=f"https://127.0.0.1:{front.port}")
        with closing(forge_at(place, TOKEN, open_http())) as forge:
            if words:
                with pytest.raises(Unavailable, match=words):
                    forge.check()
            else:
                assert "written to" in forge.check()
        front.close()
    assert len(hub.asked) == 1


# What is answered, how long it asks to wait.
@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (429, {"retry-after": "7"}, "", 7.0),
        (429, {}, "", 60.0),
        (403, {"retry-after": "90"}, "", 90.0),
        (403, {}, "You have exceeded a secondary rate limit. Please wait.", 60.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795435230"}, "", 30.0),
        (429, {"ratelimit-reset": "1795435230", "date": "Mon, 23 Nov 2026 12:00:10 GMT"}, "", 20.0),
        (429, {"retry-after": "Mon, 23 Nov 2026 12:01:00 GMT"}, "", 60.0),
        (429, {"retry-after": "9" * 11}, "", LONGEST),
        (503, {"retry-after": "5"}, "", 5.0),
        (503, {"retry-after": "-5"}, "", None),
        (500, {}, "", None),
    ],
)
def test_how_long_to_wait_is_read(status: int, headers: dict[str, str], message: str, wait: float | None) -> None:
    error = error_of(Head(status=status, headers=headers, message=message), "GET x", NOW)
    assert isinstance(error, Unavailable)
    assert error.retry_after == wait


def test_what_waiting_does_not_mend_is_told_apart() -> None:
    kinds = {status: type(error_of(Head(status=status, headers={}), "x", NOW)) for status in (401, 403, 404, 410, 422)}
    assert kinds == {401: Denied, 403: Denied, 404: Absent, 410: Absent, 422: Failed}
    assert error_of(Head(status=201, headers={}), "x", NOW) is None


@given(
    st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset", "x-ratelimit-remaining", "date"]), st.text())
)
def test_no_header_breaks_the_reading(headers: dict[str, str]) -> None:
    wait = asked_wait(headers, NOW)
    assert wait is None or 1.0 <= wait <= LONGEST
    assert exhausted(headers, NOW) is None or headers["x-ratelimit-remaining"].strip() == "0"
