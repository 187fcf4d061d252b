"""Real webhooks through the receiver, signed: each has its documented effect, or none, and is answered with 2xx."""

import asyncio
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.payloads import github_examples, payloads
from tests.receivers import bitbucket, door, gitea, github, gitlab

Delivery = tuple[str, Mapping[bytes, bytes], bytes]

CHANGING_PULLS = {"opened", "reopened", "synchronize", "edited", "closed", "ready_for_review"}


def answers(deliveries: Iterator[Delivery]) -> dict[str, tuple[int, str]]:
    """Status and text for each, by what it is called."""

    async def all_of_them() -> dict[str, tuple[int, str]]:
        found = {}
        async with door() as receiver:
            for called, headers, body in deliveries:
                answer = await receiver.deliver(headers, body)
                found[called] = answer.status, answer.text
        return found

    return asyncio.run(all_of_them())


def changing(found: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """Those by which the controller was woken, with the answer; the others were ignored with 200."""
    assert {status for status, _ in found.values()} <= {200, 202}
    return {called: text for called, (status, text) in found.items() if status == 202}


def of_github() -> Iterator[Delivery]:
    for number, (event, example) in enumerate(github_examples()):
        body = json.dumps(example).encode()
        yield f"{event} {example.get('action', '')} {number}", github(event, body), body


def test_github() -> None:
    found = answers(of_github())
    assert len(found) > 200
    woke = changing(found)
    events = [tuple(called.split(" ")[:2]) for called in woke]
    expected = [
        (event, example.get("action", ""))
        for event, example in github_examples()
        if event in {"push", "create", "delete"} or (event == "pull_request" and example["action"] in CHANGING_PULLS)
    ]
    assert sorted(events) == sorted(expected)
    assert all("refs/" in text or "pulls/" in text for text in woke.values())


def test_gitlab() -> None:
    headers = {
        "push-event": "Push Hook",
        "tag-event": "Tag Push Hook",
        "merge-request-event": "Merge Request Hook",
        "issue-event": "Issue Hook",
    }
    found = answers(
        (name, gitlab(headers.get(name, "System Hook" if name.startswith("system") else "Other Hook")), body)
        for name, body in payloads("gitlab").items()
    )
    assert changing(found) == {
        "push-event": "push: refs/heads/master",
        "tag-event": "tag_push: refs/tags/v1.0.0",
        "merge-request-event": "merge_request: pulls/1",
        "system-push-event": "push: refs/heads/master",
        "system-tag-event": "tag_push: refs/tags/v1.0.0",
        "system-merge-request-event": "merge_request: pulls/1",
    }


def test_gitea_and_forgejo() -> None:
    events = {"pull-request-event": "pull_request", "push-event": "push"}
    found = answers(
        (name, gitea(events.get(name, name.removesuffix("-event").replace("-", "_")), body), body)
        for name, body in payloads("gitea").items()
    )
    assert changing(found) == {
        "create-event": "create: refs/heads/master",
        "delete-event": "delete: refs/heads/example3",
        "pull-request-event": "pull_request: pulls/2",
        "push-event": "push: refs/heads/master",
    }


def test_bitbucket() -> None:
    events = {"pull-request-merged": "pullrequest:fulfilled", "pull-request-declined": "pullrequest:rejected"}

    def key(name: str) -> str:
        kind, _, what = name.replace("pull-request", "pullrequest").partition("-")
        return events.get(name, f"{kind}:{what.replace('-', '_')}")

    found = answers((name, bitbucket(key(name), body), body) for name, body in payloads("bitbucket").items())
    assert changing(found) == {
        "pull-request-created": "pullrequest:created: pulls/1",
        "pull-request-declined": "pullrequest:rejected: pulls/1",
        "pull-request-merged": "pullrequest:fulfilled: pulls/1",
        "pull-request-updated": "pullrequest:updated: pulls/1",
        "repo-push": "repo:push: refs/heads/name-of-branch",
    }


def one(headers: Mapping[bytes, bytes], payload: Mapping[str, object]) -> str:
    return answers(iter([("it", headers, json.dumps(payload).encode())]))["it"][1]


PUSH = {"ref": "refs/heads/main", "before": "1" * 40, "after": "2" * 40}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        pytest.param({**PUSH, "forced": True}, "push: refs/heads/main", id="forced"),
        pytest.param({**PUSH, "deleted": True, "after": "0" * 40}, "push: refs/heads/main", id="deleted"),
        pytest.param({**PUSH, "commits": [{"id": "3" * 40}] * 50}, "push: refs/heads/main", id="of 50 commits"),
        pytest.param({**PUSH, "ref": "refs/heads/dstack"}, "push: refs/heads/dstack", id="of a branch dstack"),
        pytest.param({**PUSH, "ref": "refs/heads/ü/x"}, "push: refs/heads/ü/x", id="not of ASCII"),
    ],
)
def test_a_push_of_any_kind_says_that_the_code_changed(payload: Mapping[str, object], said: str) -> None:
    body = json.dumps(payload).encode()
    assert one(github("push", body), payload) == said


def test_a_form_is_read_as_well() -> None:
    body = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"
    headers = {**github("push", body), b"content-type": b"application/x-www-form-urlencoded"}
    assert answers(iter([("form", headers, body)])) == {"form": (202, "push: refs/heads/main")}
