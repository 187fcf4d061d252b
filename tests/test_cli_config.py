"""`dstack config`: which settings hold, where each comes from, and who may change which."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.model import personal
from dstack.model.errors import Invalid
from dstack.model.personal import Layer, overlaid
from dstack.model.settings import Settings
from dstack.personal import write_file
from tests.calls import Desk, desk
from tests.repositories import sh


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = desk(tmp_path, capfd)
    assert made.dstack("init", "--store", (tmp_path / "store").as_uri()).code == 0
    return made


def shown(at: Desk) -> dict[str, tuple[object, str]]:
    return {one["key"]: (one["value"], one["origin"]) for one in at.dstack("config", "list", "--json").json}


def test_later_layers_win_and_each_value_says_where_it_is_from() -> None:
    shared = Settings(region="one", lease=90.0)
    layers = (
        Layer(origin="file", values={"region": "two", "throttle": "forge"}),
        Layer(origin="V", values={"region": "3"}),
    )
    here = personal.overlaid(shared, layers)
    assert here == replace(shared, region="3", throttle="forge")
    origins = [personal.origin(key, shared, layers) for key in ("region", "throttle", "lease", "kms_key")]
    assert origins == ["V", "file", "shared", "default"]
    assert personal.overlaid(shared, ()) is shared


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"lease: 5\n", "lease is the same for all"),
        (b"regoin: x\n", "mine.yaml can't be read: .*regoin"),
        (b"[", "mine.yaml"),
        (b"throttle: often\n", "mine.yaml"),
    ],
)
def test_a_file_that_is_wrong_is_named(text: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        personal.from_file(text, "mine.yaml")


def test_a_variable_that_is_wrong_is_named() -> None:
    with pytest.raises(Invalid, match="DSTACK_THROTTLE: throttle can't be 'often'"):
        personal.from_environment({"DSTACK_THROTTLE": "often"})
    assert personal.from_environment({"DSTACK_RUN": "x", "DSTACK_LEASE": "5", "DSTACK_REGION": ""}) == ()


def test_a_shared_setting_is_a_commit_for_all(at: Desk) -> None:
    assert at.dstack("config", "set", "lease", "300").out == "lease is 300, for all\n"
    assert shown(at)["lease"] == (300.0, "shared")
    assert at.dstack("config", "get", "lease").out == "300\n"
    assert sh(at.remote, "log", "-1", "--format=%s", "refs/heads/dstack/config").strip() == "Set lease [skip ci]"
    assert at.dstack("config", "set", "lease", "--unset").code == 0
    assert shown(at)["lease"] == (60.0, "default")


def test_a_personal_setting_is_this_users_alone_and_a_variable_beats_it(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = at.refs()
    assert at.dstack("config", "set", "storage-class", "STANDARD_IA", "--personal").code == 0
    path = tmp_path / "config/dstack/config.yaml"
    assert shown(at)["storage_class"] == ("STANDARD_IA", str(path))
    monkeypatch.setenv("DSTACK_STORAGE_CLASS", "GLACIER_IR")
    assert shown(at)["storage_class"] == ("GLACIER_IR", "DSTACK_STORAGE_CLASS")
    monkeypatch.delenv("DSTACK_STORAGE_CLASS")
    assert at.dstack("config", "set", "storage_class", "--unset", "--personal").code == 0
    assert shown(at)["storage_class"] == (None, "default")
    assert at.refs() == before


def test_what_holds_here_alone_is_never_written_for_all(at: Desk) -> None:
    assert at.dstack("config", "set", "region", "mars-1", "--personal").code == 0
    assert at.dstack("config", "set", "lease", "90").code == 0
    assert "mars" not in sh(at.remote, "show", "refs/heads/dstack/config:config.yaml")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("leese", "5"), "did you mean 'lease'"),
        (("lease", "soon"), "lease can't be 'soon'"),
        (("lease", "0"), "give seconds from 1 to 86400"),
        (("stores", "x"), "init --store NEW --copied"),
        (("store", "file:///x"), "dstack init --store URL"),
        (("lease", "5", "--personal"), "leave --personal out"),
    ],
)
def test_what_can_not_be_set_says_why_and_changes_nothing(at: Desk, words: tuple[str, ...], why: str) -> None:
    before = at.refs()
    answer = at.dstack("config", "set", *words)
    assert (answer.code, why in answer.err, at.refs() == before) == (1, True, True), answer


def test_without_a_value_or_with_one_too_many_it_is_wrong_usage(at: Desk) -> None:
    assert at.dstack("config", "set", "lease").code == 2
    assert at.dstack("config", "set", "lease", "5", "--unset").code == 2
    assert "lease" in at.dstack("config").out


def test_a_controller_goes_by_the_settings_of_who_starts_it(at: Desk, tmp_path: Path) -> None:
    mine = (tmp_path / "mine").as_uri()
    write_file(tmp_path / "config/dstack/config.yaml", {"store": mine})
    assert at.dstack("init").code == 0
    assert at.dstack("run", "hello", "--local", "-y").code == 0
    (run,) = at.dstack("status", "--json").json
    assert run["store"] == mine
    assert "mine" not in sh(at.remote, "show", "refs/heads/dstack/config:config.yaml")


def test_who_may_start_runs_is_a_setting_of_all(at: Desk) -> None:
    rules = "[{branches: [main], by: ['*@example.com', 'signer:ada@example.org']}]"
    assert at.dstack("config", "set", "triggers", rules).code == 0
    assert json.loads(at.dstack("config", "get", "triggers").out) == [
        {"branches": ["main"], "by": ["*@example.com", "signer:ada@example.org"]}
    ]
    assert "leave --personal out" in at.dstack("config", "set", "triggers", rules, "--personal").err
    assert "rule 1 of `triggers`" in at.dstack("config", "set", "triggers", "[{by: []}]").err


def test_that_runs_must_be_signed_can_be_demanded_by_all_and_taken_back_by_nobody_alone(at: Desk) -> None:
    assert at.dstack("config", "set", "signed", "true", "--personal").code == 0
    assert at.dstack("config", "get", "signed").out == "true\n"
    at.dstack("config", "set", "signed", "true")
    at.dstack("config", "set", "signed", "false", "--personal")
    assert at.dstack("config", "get", "signed").out == "true\n"


def test_nobody_else_chooses_whom_this_machine_trusts(at: Desk) -> None:
    assert "add --personal" in at.dstack("config", "set", "signers", "/etc/signers").err
    assert at.dstack("config", "set", "signers", "/etc/signers", "--personal").code == 0
    assert at.dstack("config", "get", "signers").out == "/etc/signers\n"
    settings = overlaid(Settings(signers="/somebody/elses", signed=True), ())
    assert (settings.signers, settings.signed) == (None, True)
