"""Who may start runs by pushing code."""

import pytest

from dstack.model.trust import TriggerRule, mail_of, may_trigger, needs_signer, rule_problem

LEADS = TriggerRule(branches=("main", "release/**"), by=("ann@example.com", "signer:bob@example.com"))
STAFF = TriggerRule(by=("*@example.com", "!guest@example.com"))


@pytest.mark.parametrize(
    ("ref", "by", "signer", "may"),
    [
        ("refs/heads/main", "Ann <ann@example.com>", "", True),
        ("refs/heads/main", "Ann <ANN@Example.com>", "", True),
        ("refs/heads/main", "Carl <carl@example.com>", "", False),
        ("refs/heads/main", "Bob <bob@example.com>", "", False),
        ("refs/heads/main", "Anyone <x@y.z>", "bob@example.com", True),
        ("refs/heads/main", "", "", False),
        ("refs/heads/release/1/2", "Carl <carl@example.com>", "", False),
        ("refs/heads/topic", "Carl <carl@example.com>", "", True),
        ("refs/heads/topic", "Guest <guest@example.com>", "", False),
        ("refs/heads/topic", "Mallory <mallory@evil.example>", "", False),
        ("refs/tags/main", "Carl <carl@example.com>", "", True),
        ("refs/pull/7/head", "Mallory <m@evil.example>", "", False),
        ("schedule/train", "Carl <carl@example.com>", "", True),
    ],
)
def test_the_last_rule_about_a_ref_decides(ref: str, by: str, signer: str, *, may: bool) -> None:
    why = may_trigger((STAFF, LEADS), ref, by, signer=signer)
    assert (why is None) == may
    assert may or "may not start runs" in str(why)


def test_without_a_rule_about_the_ref_anybody_may() -> None:
    assert may_trigger((), "refs/heads/main", "") is None
    assert may_trigger((LEADS,), "refs/heads/topic", "x <x@y.z>") is None
    assert may_trigger((TriggerRule(tags=("v*",), by=("a@b.c",)),), "refs/heads/v1", "x <x@y.z>") is None


def test_a_mail_is_not_taken_for_a_signer_nor_the_other_way_round() -> None:
    rule = TriggerRule(by=("signer:ann@example.com",))
    assert may_trigger((rule,), "refs/heads/main", "signer:ann@example.com <signer:ann@example.com>") is not None
    assert may_trigger((TriggerRule(by=("ann@example.com",)),), "refs/heads/x", "", signer="ann@example.com")


def test_a_signature_is_only_looked_at_where_a_rule_names_signers() -> None:
    assert needs_signer((STAFF, LEADS), "refs/heads/main")
    assert not needs_signer((STAFF, LEADS), "refs/heads/topic")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (TriggerRule(by=()), "`by` is empty"),
        (TriggerRule(by=("signer:",)), "names nobody"),
        (TriggerRule(by=("!signer:x",)), "signer:!NAME"),
        (TriggerRule(by=("a@b.c",), branches=("!main",)), "only takes back"),
        (TriggerRule(by=("a@b.c",), branches=("refs/heads/x",)), "the name alone"),
        (TriggerRule(by=tuple(["a@b.c"] * 201)), "at most 200"),
    ],
)
def test_a_rule_that_can_mean_nothing_is_refused(rule: TriggerRule, said: str) -> None:
    assert said in rule_problem(rule)


def test_an_address_is_found_in_what_a_commit_says() -> None:
    assert mail_of("Ann <B> <ann@example.com>") == "ann@example.com"
    assert mail_of("ann@example.com") == "ann@example.com"
    assert mail_of("Ann") == ""
    assert rule_problem(LEADS) == "" == rule_problem(STAFF)
