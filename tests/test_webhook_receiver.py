"""What the receiver answers, and to whom: good deliveries, bad ones, repeats, waiting and poking; nothing does harm."""

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dstack.model.hookpath import hook_path
from tests.receivers import (
    HOOKS,
    NAME,
    PATH,
    SECRET,
    SERVED,
    TOKEN,
    Door,
    door,
    github,
    gitlab,
    scope,
)
from webhooks.bodies import LIMIT
from webhooks.link import DEAF_SECONDS
from webhooks.messages import Ask, Numbers, Serve, Served, Standing, Told, What
from webhooks.wakes import Wakes

GUESSED = "guessed"
BODY = b'{"ref":"refs/heads/main"}'
BEARER = {b"authorization": f"Bearer {TOKEN}".encode()}
WAKE, POKE = f"/wake/{PATH}", f"/poke/{PATH}"


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_signed_push_wakes_the_controller_at_once() -> None:
    async def work() -> None:
        async with door() as receiver:
            answer = await receiver.deliver(github("push", BODY), BODY)
            assert (answer.status, answer.text) == (202, "push: refs/heads/main")
            assert receiver.woken() == [What.CODE]

    run(work())


def test_branches_and_tags_of_dstack_itself_are_state_and_never_code() -> None:
    async def work() -> None:
        async with door() as receiver:
            body = b'{"ref":"refs/heads/dstack/runs/fast-rabbit-1"}'
            assert (await receiver.deliver(github("push", body), body)).status == 202
            assert receiver.woken() == [What.STATE]
            body = b'{"ref":"dstack/best","ref_type":"tag"}'
            assert (await receiver.deliver(github("create", body), body)).text == "create: refs/tags/dstack/best"

    run(work())


def test_a_forged_delivery_is_refused_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with door() as receiver:
            for headers in (
                github("push", BODY, secret=GUESSED),
                github("push", b"another body"),
                gitlab("Push Hook", secret=GUESSED),
                {b"x-github-event": b"push"},
            ):
                answer = await receiver.deliver(headers, BODY)
                assert answer.status == 401
                assert answer.text in caplog.records[-1].getMessage()
                assert SECRET not in caplog.text
            assert receiver.woken() == []

    run(work())


def test_an_unknown_path_is_told_nothing() -> None:
    async def work() -> None:
        async with door() as receiver:
            for path in ("/hooks/" + "0" * 32, "/hooks/x", "/hooks/ü", f"/hooks/{PATH.upper()}"):
                answer = await receiver.deliver(github("push", BODY), BODY, path)
                assert (answer.status, answer.text) == (404, "not found")
                known, unknown = await receiver.send("GET", HOOKS), await receiver.send("GET", path)
                assert known == unknown
                assert (known.status, known.headers[b"allow"]) == (405, b"POST")
            assert (await receiver.deliver(github("push", BODY), BODY, f"{HOOKS}/")).status == 404
            assert (await receiver.send("GET", "/")).status == 404

    run(work())


def test_a_path_that_may_become_known_is_to_be_tried_again() -> None:
    async def work() -> None:
        served = Served(name=NAME, secrets=(SECRET,))
        async with door(served) as receiver:
            path = f"/hooks/{hook_path(SECRET, '4d5e6f')}"
            answer = await receiver.deliver(github("push", BODY), BODY, path)
            assert (answer.status, answer.headers[b"retry-after"]) == (503, b"10")
            receiver.say(Serve(repositories=(SERVED,)))
            await asyncio.sleep(0.01)
            assert (await receiver.deliver(github("push", BODY), BODY, path)).status == 202

    run(work())


def test_without_any_secret_it_says_how_to_set_one() -> None:
    async def work() -> None:
        for served in (Served(name=NAME), Served(name=NAME, tokens=(TOKEN,))):
            async with door(served) as receiver:
                answer = await receiver.deliver(github("push", BODY), BODY, f"/hooks/{hook_path(TOKEN, NAME)}")
                assert answer.status == 401
                assert "DSTACK_WEBHOOK_SECRET" in answer.text

    run(work())


def test_a_secret_is_rotated_by_listing_both() -> None:
    async def work() -> None:
        async with door(Served(name=NAME, secrets=("new", SECRET), repository="4d5e6f")) as receiver:
            for path in (HOOKS, f"/hooks/{hook_path('new', NAME)}"):
                for secret in (SECRET, "new"):
                    assert (await receiver.deliver(github("push", BODY, secret), BODY, path)).status == 202
            receiver.say(Serve(repositories=(Served(name=NAME, secrets=("new",), repository="4d5e6f"),)))
            await asyncio.sleep(0.01)
            assert (await receiver.deliver(github("push", BODY), BODY)).status == 404
            path = f"/hooks/{hook_path('new', NAME)}"
            assert (await receiver.deliver(github("push", BODY), BODY, path)).status == 401

    run(work())


def test_one_repositorys_secret_is_nothing_to_another() -> None:
    async def work() -> None:
        other = Served(name="acme/eval", secrets=("theirs",), repository="5ab98f20")
        async with door(SERVED, other) as receiver:
            path = f"/hooks/{hook_path('theirs', 'acme/eval')}"
            assert (await receiver.deliver(github("push", BODY), BODY, path)).status == 401
            path = f"/hooks/{hook_path('theirs', '5ab98f20')}"
            assert (await receiver.deliver(github("push", BODY, "theirs"), BODY, path)).status == 202

    run(work())


def test_a_body_larger_than_25_mib_is_refused_by_what_it_says_and_by_what_it_is() -> None:
    async def work() -> None:
        async with door() as receiver:
            said = {**github("push", BODY), b"content-length": str(LIMIT + 1).encode()}
            answer = await receiver.send("POST", HOOKS, said, [])  # not a byte of it is waited for
            assert answer.status == 413
            assert answer.headers[b"connection"] == b"close"
            mib = bytes(1024 * 1024)
            for length in (
                {},
                {b"content-length": b"12"},
                {b"content-length": b"-1"},
                {b"content-length": b"9" * 5000},
            ):
                answer = await receiver.send("POST", HOOKS, {**github("push", BODY), **length}, [mib] * 26)
                assert answer.status == 413
            body = b'{"ref":"refs/heads/main","x":"' + b"x" * (LIMIT - 32) + b'"}'
            assert len(body) == LIMIT
            assert (await receiver.deliver(github("push", body), body)).status == 202
            assert receiver.parts.bodies.bytes == receiver.parts.bodies.requests == 0

    run(work())


def test_more_than_can_be_held_is_sent_away_for_a_while() -> None:
    async def work() -> None:
        async with door() as receiver:
            receiver.parts.bodies.requests = 10_000
            answer = await receiver.deliver(github("push", BODY), BODY)
            assert (answer.status, answer.headers[b"retry-after"]) == (503, b"10")
            receiver.parts.bodies.requests = 0
            receiver.parts.bodies.bytes = 10 * LIMIT
            assert (await receiver.send("POST", HOOKS, github("push", BODY), [BODY, b""])).status == 503
            assert receiver.parts.bodies.bytes == 10 * LIMIT

    run(work())


def test_a_controller_that_has_fallen_silent_takes_no_deliveries() -> None:
    async def work() -> None:
        async with door() as receiver:
            receiver.parts.link._heard -= DEAF_SECONDS + 1
            assert (await receiver.deliver(github("push", BODY), BODY)).status == 503
            receiver.say(Told(standings=()))
            await asyncio.sleep(0.01)
            assert (await receiver.deliver(github("push", BODY), BODY)).status == 202

    run(work())


def test_what_is_cut_off_wakes_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with door() as receiver:
            sent: list[Message] = []
            parts: list[Message] = [
                {"type": "http.request", "body": BODY[:9], "more_body": True},
                {"type": "http.disconnect"},
            ]

            async def receive() -> Message:
                return parts.pop(0)

            async def send(message: Message) -> None:
                sent.append(message)

            await receiver.app(scope("POST", HOOKS, b"", github("push", BODY)), receive, send)
            assert sent[0]["status"] == 400
            assert "cut off" in caplog.text
            assert receiver.woken() == []

    run(work())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"ref":17}', "Expected `str | null`, got `int` - at `$.ref`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"", "Input data was truncated"),
        (b"\xff\xfe", "can't be read"),
        (b'{"ref":"\\ud800"}', "can't be read"),
        (b'{"x":' + b"[" * 5_000_000, "nested too deeply"),
        (b'{"x":' * 1_000_000, "nested too deeply"),
        (b'{"ref":"refs/heads/main"', "Input data was truncated"),
    ],
)
def test_what_is_signed_and_cant_be_read_is_taken_for_a_change_of_anything(
    body: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with door() as receiver:
            assert (await receiver.deliver(github("push", body), body)).status == 202
            assert receiver.woken() == [What.CODE]
        assert said in caplog.text

    run(work())


def test_numbers_of_any_size_do_no_harm() -> None:
    async def work() -> None:
        async with door() as receiver:
            for number in ("9" * 18, "9" * 40, "9" * 5000, "1e400", "-1", "1.5", "true", '"1"', "null"):
                body = f'{{"action":"opened","number":{number}}}'.encode()
                assert (await receiver.deliver(github("pull_request", body), body)).status == 202

    run(work())


def test_a_name_cant_write_a_line_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        async with door() as receiver:
            body = json.dumps({"ref": "refs/heads/a\n12:00:00 ERROR all is lost\x1b[2J"}).encode()
            answer = await receiver.deliver(github("push", body), body)
            assert answer.text == "push: refs/heads/a?12:00:00 ERROR all is lost?[2J"
        assert not [record for record in caplog.records if "\n" in record.getMessage() or "\x1b" in record.getMessage()]

    run(work())


def test_a_repeat_is_answered_well_and_wakes_nobody_again() -> None:
    async def work() -> None:
        async with door() as receiver:
            headers = github("push", BODY, delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958")
            assert (await receiver.deliver(headers, BODY)).status == 202
            assert receiver.woken() == [What.CODE]
            again = await receiver.deliver(headers, BODY)
            assert (again.status, again.text) == (200, "push: it came before, and was heard")
            other = b'{"ref":"refs/heads/other"}'
            named = github("push", other, delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958")
            assert (await receiver.deliver(named, other)).status == 202
            forged = github("push", BODY, secret=GUESSED, delivery="new")
            assert (await receiver.deliver(forged, BODY)).status == 401
            assert (await receiver.deliver(github("push", BODY, delivery="new"), BODY)).status == 202

    run(work())


def test_ten_thousand_deliveries_wake_a_handful_of_times() -> None:
    async def work() -> None:
        async with door() as receiver:
            bodies = [f'{{"ref":"refs/heads/{number}"}}'.encode() for number in range(10)]
            deliveries = [(github("push", body), body) for body in bodies] * 1000
            for headers, body in deliveries:
                assert (await receiver.deliver(headers, body)).status == 202
            woken = receiver.woken()
            assert 1 <= len(woken) <= 12

    run(work())


def test_who_waits_is_told_of_a_change_at_once() -> None:
    async def work() -> None:
        async with door() as receiver:
            receiver.say(Numbers(last={NAME: 7}))
            await asyncio.sleep(0.01)
            for query in ("", "?since=3", "?since=9"):  # 9: of a time before a restart
                answer = await receiver.send("GET", WAKE + query, BEARER)
                assert (answer.status, json.loads(answer.body)) == (200, {"change": 7})
            waiting = [asyncio.create_task(receiver.send("GET", f"{WAKE}?since=7", BEARER)) for _ in range(2000)]
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in waiting)
            receiver.say(Numbers(last={"another": 3}))
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in waiting)
            receiver.say(Numbers(last={NAME: 8}))
            answers = await asyncio.wait_for(asyncio.gather(*waiting), 10)
            assert {answer.body for answer in answers} == {b'{"change":8}'}

    run(work())


def test_who_waits_in_vain_is_answered_before_a_proxy_loses_patience() -> None:
    async def work() -> None:
        async with door() as receiver:
            counted: list[int] = []
            wakes = Wakes(repositories=receiver.parts.repositories, counted=counted.append, longest=0.05, most=1)
            patient = Door(app=at(wakes, PATH), parts=receiver.parts, line=receiver.line)
            waiting = asyncio.create_task(patient.send("GET", f"{WAKE}?since=0", BEARER))
            await asyncio.sleep(0.01)
            refused = await patient.send("GET", f"{WAKE}?since=0", BEARER)
            assert (refused.status, refused.headers[b"retry-after"]) == (503, b"60")
            assert (await waiting).body == b'{"change":0}'
            assert counted == [1, -1]

    run(work())


def at(app: ASGIApp, path: str) -> ASGIApp:
    """As the router calls it."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path_params": {"path": path}}, receive, send)

    return routed


def test_waiting_and_poking_need_a_token() -> None:
    async def work() -> None:
        async with door() as receiver:
            for headers in (
                {},
                {b"authorization": b"Bearer "},
                {b"authorization": b"Bearer guessed"},
                {b"authorization": f"Basic {TOKEN}".encode()},
                {b"authorization": f"Bearer {SECRET}".encode()},
                {b"authorization": b"\xff" * 1000},
            ):
                for method, path in (("GET", WAKE), ("POST", POKE)):
                    answer = await receiver.send(method, path, headers)
                    assert (answer.status, answer.headers[b"www-authenticate"]) == (401, b"Bearer")
            assert (await receiver.send("GET", "/wake/" + "0" * 32, BEARER)).status == 404
            assert (await receiver.send("POST", WAKE, BEARER)).status == 405
            assert (await receiver.send("GET", POKE, BEARER)).status == 405
            for since in ("x", "-1", "1.5", "9" * 30, "%FF", "&" * 20):
                assert (await receiver.send("GET", f"{WAKE}?since={since}", BEARER)).status == 400
            assert receiver.woken() == []
            by_token = f"/poke/{hook_path(TOKEN, NAME)}"
            assert (await receiver.send("POST", by_token, {b"authorization": f"bearer {TOKEN}".encode()})).status == 202
            assert receiver.woken() == [What.STATE]

    run(work())


def test_health_readiness_and_metrics() -> None:
    async def work() -> None:
        async with door() as receiver:
            assert (await receiver.send("GET", "/healthz")).text == "ok"
            asking = asyncio.create_task(receiver.send("GET", "/readyz"))
            await asyncio.sleep(0.01)
            assert Ask() in receiver.heard()
            receiver.say(Told(standings=(Standing(name=NAME, polled=1.23, turns=3, failures=2), Standing(name="b"))))
            answer = await asking
            assert answer.status == 200
            assert json.loads(answer.body) == {"ready": True, "answers": True, "polled": {NAME: 1.2, "b": None}}

            await receiver.deliver(github("push", BODY), BODY)
            await receiver.deliver(github("star", b"{}"), b"{}")
            await receiver.deliver(github("push", BODY, "guessed"), BODY)
            await receiver.deliver(github("push", BODY), BODY, "/hooks/" + "0" * 32)
            asking = asyncio.create_task(receiver.send("GET", "/metrics"))
            await asyncio.sleep(0.01)
            receiver.say(Told(standings=(Standing(name=NAME, polled=2.0, turns=4, failures=2, runs=5),)))
            page = (await asking).text
            for line in (
                f'dstack_webhook_deliveries_total{{forge="github",repository="{NAME}",result="woke"}} 1.0',
                f'dstack_webhook_deliveries_total{{forge="github",repository="{NAME}",result="ignored"}} 1.0',
                f'dstack_webhook_deliveries_total{{forge="github",repository="{NAME}",result="refused"}} 1.0',
                'dstack_webhook_deliveries_total{forge="github",repository="-",result="not-found"} 1.0',
                f'dstack_webhook_wakes_total{{repository="{NAME}",what="code"}} 1.0',
                "dstack_webhook_seconds_count 4.0",
                "dstack_wake_polls_open 0.0",
                f'dstack_controller_turns_total{{repository="{NAME}"}} 4.0',
                f'dstack_controller_runs{{repository="{NAME}"}} 5.0',
                f'dstack_controller_poll_failures_total{{repository="{NAME}"}} 2.0',
                f'dstack_controller_polled_seconds{{repository="{NAME}"}} 2.0',
            ):
                assert line in page.splitlines(), page
            assert PATH not in page

    run(work())


def test_a_receiver_whose_controller_has_read_nothing_yet_isnt_ready() -> None:
    async def work() -> None:
        async with door() as receiver:
            asking = asyncio.create_task(receiver.send("GET", "/readyz"))
            await asyncio.sleep(0.01)
            receiver.say(Told(standings=(Standing(name=NAME),)))
            answer = await asking
            assert (answer.status, json.loads(answer.body)["ready"]) == (503, False)

    run(work())
