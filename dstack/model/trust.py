"""Who may start runs by pushing code, and whose runs are executed: the rules alone. Pure (DESIGN section 12)."""

from dstack.model.codec import Value
from dstack.model.errors import Invalid
from dstack.model.patterns import NOT, chosen, only_negative, ref_problem

SIGNER = "signer:"
MOST_RULES = 100
MOST_NAMES = 200

_BRANCH, _TAG = "refs/heads/", "refs/tags/"


class TriggerRule(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may start runs by moving certain refs. Patterns as in `patterns`; with neither branches nor tags: any ref.

    `by`: mail addresses that the commit names as its committer's, which anybody can write; or `signer:` and a
    principal, to whom the commit's signature must have been verified.
    """

    by: tuple[str, ...]
    branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def covers(self, ref: str) -> bool:
        """Whether the rule is about this full ref."""
        if not self.branches and not self.tags:
            return True
        if ref.startswith(_BRANCH):
            return bool(self.branches) and chosen(self.branches, ref.removeprefix(_BRANCH))
        return ref.startswith(_TAG) and bool(self.tags) and chosen(self.tags, ref.removeprefix(_TAG))

    def names(self, mail: str, signer: str) -> bool:
        """Whether it lets these start runs; `signer` is empty where nobody's signature was verified."""
        signers = tuple(one.removeprefix(SIGNER).lower() for one in self.by if one.startswith(SIGNER))
        mails = tuple(one.lower() for one in self.by if not one.startswith(SIGNER))
        return (bool(mail) and _is_named(mails, mail)) or (bool(signer) and _is_named(signers, signer))


def may_trigger(rules: tuple[TriggerRule, ...], ref: str, by: str, *, signer: str = "") -> str | None:
    """Why `by` (`Name <mail>`) may start nothing by moving `ref`; None: they may. The last rule about a ref decides.

    `signer`: to whom the signature of the commit was verified. Where no rule is about the ref, anybody may.
    """
    rule = next((one for one in reversed(rules) if one.covers(ref)), None)
    if rule is None or rule.names(mail_of(by), signer):
        return None
    who = f"{by or 'a commit that names nobody'}{f' (signed by {signer})' if signer else ''}"
    return f"{who} may not start runs from {_short(ref)}: the shared setting `triggers` names {', '.join(rule.by[:5])}"


def needs_signer(rules: tuple[TriggerRule, ...], ref: str) -> bool:
    """Whether it matters for this ref who signed the commit."""
    rule = next((one for one in reversed(rules) if one.covers(ref)), None)
    return rule is not None and any(one.startswith(SIGNER) for one in rule.by)


def check_rules(rules: tuple[TriggerRule, ...]) -> None:
    """Raises Invalid, with the number of the rule."""
    if len(rules) > MOST_RULES:
        msg = f"`triggers` has {len(rules)} rules; at most {MOST_RULES} are read"
        raise Invalid(msg)
    for number, rule in enumerate(rules, 1):
        if problem := rule_problem(rule):
            msg = f"rule {number} of `triggers`: {problem}"
            raise Invalid(msg)


def rule_problem(rule: TriggerRule) -> str:
    """What is wrong with a rule, and what would be right; empty where nothing is."""
    for patterns in (rule.branches, rule.tags):
        if problem := next((problem for one in patterns if (problem := ref_problem(one))), ""):
            return problem
        if only_negative(patterns):
            return f"{patterns[0]!r} only takes back: begin with a pattern that matches something, like `**`"
    if not rule.by:
        return "`by` is empty: name mail addresses, like `*@example.com`, or `signer:alice@example.com`"
    if max(map(len, (rule.by, rule.branches, rule.tags))) > MOST_NAMES:
        return f"a rule has at most {MOST_NAMES} patterns of a kind"
    return next((problem for one in rule.by if (problem := _by_problem(one))), "")


def mail_of(by: str) -> str:
    """The address in `Name <mail>`, or a bare address; empty where there is none. In small letters."""
    inner = by.rpartition("<")[2].partition(">")[0] if "<" in by else by
    return inner.strip().lower() if "@" in inner else ""


def _is_named(patterns: tuple[str, ...], name: str) -> bool:
    return bool(patterns) and chosen(patterns, name.lower())


def _by_problem(text: str) -> str:
    name = text.removeprefix(SIGNER).removeprefix(NOT)
    if text.startswith(NOT + SIGNER):
        return f"write `{SIGNER}!NAME` for a signer who may not"
    return ref_problem(name) if name else f"{text!r} names nobody"


def _short(ref: str) -> str:
    return ref.removeprefix(_BRANCH).removeprefix("refs/")
