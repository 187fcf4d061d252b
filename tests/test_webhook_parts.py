"""The receiver's small parts: when wake-ups go out, what is remembered, what is logged, where is listened."""

import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Failed, Invalid
from webhooks.address import Address, listen, parse_address
from webhooks.deliveries import REMEMBERED, SECONDS, Deliveries, DeliveriesFile
from webhooks.gather import LONGEST_GAP, Gather
from webhooks.messages import Numbers, Served, What, Woke, from_receiver, line, to_receiver
from webhooks.told import MOST, ToldHandler


def test_the_first_news_passes_at_once_and_a_storm_ever_more_rarely() -> None:
    gather: Gather[str] = Gather()
    sent = []
    for tick in range(5000):  # 5 s, a delivery each millisecond
        gather.add("a")
        sent += [tick] * len(gather.due(tick / 1000))
    assert sent[0] == 0
    assert len(sent) <= 7
    at = gather.next_at()
    assert at is not None
    assert at <= 5.0 + LONGEST_GAP
    assert gather.due(at) == ["a"]  # what came last isn't forgotten
    assert gather.next_at() is None
    gather.add("a")
    assert gather.due(at + 10) == ["a"]
    gather.add("a")
    assert gather.due(at + 10.11) == ["a"]  # it was quiet for a while: gaps are short again


def test_one_storm_delays_no_other() -> None:
    gather: Gather[str] = Gather()
    for tick in range(3000):
        gather.add("loud")
        gather.due(tick / 1000)
    gather.add("quiet")
    assert "quiet" in gather.due(3.0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_whatever_comes_when_is_passed_on_in_time(gaps: list[float]) -> None:
    gather: Gather[str] = Gather()
    now, unsaid = 0.0, None
    for gap in gaps:
        end = now + gap
        while (at := gather.next_at()) is not None and at <= end:
            assert unsaid is not None
            assert gather.due(max(at, now)) == ["a"]
            assert at - unsaid <= LONGEST_GAP
            unsaid = None
        now = end
        gather.add("a")
        unsaid = now if unsaid is None else unsaid
        if gather.due(now):
            unsaid = None


def test_deliveries_are_remembered_for_a_while_and_not_without_end(tmp_path: Path) -> None:
    seen = Deliveries()
    assert not seen.repeated("a", "id", b"body", 0.0)
    assert seen.repeated("a", "id", b"body", SECONDS - 1)
    assert not seen.repeated("b", "id", b"body", 0.0)
    assert not seen.repeated("a", "id", b"other", 0.0)
    assert not seen.repeated("a", "", b"body", 0.0)
    assert not seen.repeated("a", "", b"body", 0.0)
    assert not seen.repeated("a", "id", b"body", SECONDS)
    for number in range(REMEMBERED + 50):
        seen.repeated("a", str(number), b"", 1.0)
    assert len(seen.snapshot()) == REMEMBERED

    file = DeliveriesFile(tmp_path / "new" / "deliveries.json")
    assert file.load() == []
    file.keep(seen.snapshot())
    file.keep(seen.snapshot())
    assert (tmp_path / "new" / "deliveries.json").stat().st_mode & 0o77 == 0
    again = Deliveries()
    again.restore(file.load())
    assert again.repeated("a", str(REMEMBERED), b"", 2.0)
    assert not again.changed


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"deliveries":{"1":{"seen":[["x"]]}}}', b'{"deliveries":{"1":{}}}']
)
def test_a_file_of_deliveries_that_is_garbage_is_an_empty_one(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deliveries.json"
    path.write_bytes(text)
    file = DeliveriesFile(path)
    assert file.load() == []
    file.keep([("a/1", 2.0)])
    assert file.load() == [("a/1", 2.0)]


def test_a_folder_that_cant_be_written_is_told_and_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    file = DeliveriesFile(tmp_path / "file" / "deliveries.json")
    assert file.load() == []
    file.keep([("a/1", 2.0)])
    assert caplog.text.count("deliveries") >= 2


def test_nobody_fills_the_log() -> None:
    said: list[str] = []
    now = 0.0
    handler = ToldHandler(lambda _, text: said.append(text), clock=lambda: now)
    for number in range(1000):
        handler.handle(logging.makeLogRecord({"msg": "refused: %s", "args": (number,)}))
    handler.handle(logging.makeLogRecord({"msg": "something else"}))
    assert said == [*(f"refused: {number}" for number in range(MOST)), "something else"]
    now = 61.0
    handler.handle(logging.makeLogRecord({"msg": "refused: %s", "args": ("again",)}))
    assert said[-1] == f"refused: again ({1000 - MOST} more like this were not logged)"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        ("0.0.0.0:80", "0.0.0.0", 80),  # noqa: S104 (an example)
        ("[::1]:0", "::1", 0),
        ("dstack.example.org:65535", "dstack.example.org", 65535),
    ],
)
def test_an_address_is_host_and_port_or_a_port_of_this_machine(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host=host, port=port)
    assert parse_address(str(parse_address(text))) == Address(host=host, port=port)


@pytest.mark.parametrize(
    "text", ["", ":", ":80", "host", "host:", "host:x", "1:65536", "::1:80", "80:80:80", "[::1]", "٨٠"]
)
def test_what_is_no_address_is_explained(text: str) -> None:
    with pytest.raises(Invalid, match=re.escape("of this machine") + "|for itself"):
        parse_address(text)


def test_an_address_that_is_taken_is_explained() -> None:
    listening, where = listen(parse_address("0"))
    with listening, pytest.raises(Failed, match=f"127.0.0.1:{where.port} can't be listened at: Address already in use"):
        listen(where)


def test_lines_between_controller_and_receiver_round_trip() -> None:
    for message in (Woke(name="ü", what=What.CODE), Numbers(last={"a\nb": 2**53})):
        text = line(message)
        assert text.count(b"\n") == 1
        assert (from_receiver(text) if isinstance(message, Woke) else to_receiver(text)) == message
    for garbage in (b"", b"x", b"[]", b'{"type":"later"}', b"[" * 100_000):
        assert from_receiver(garbage) is None


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Served(name="a", secrets=("hidden",), tokens=("hidden",)))
    assert json.loads(line(Numbers(last={"a": 1}))) == {"type": "numbers", "last": {"a": 1}}
