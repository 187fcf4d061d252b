"""The settings shared by all, in `config.yaml` on the branch `dstack/config`."""

import re
from typing import Literal

import msgspec

from dstack.model.codec import Value, convert
from dstack.model.document import Mapping, Node, Scalar, parse_document
from dstack.model.errors import Invalid
from dstack.model.forge import ForgeSettings
from dstack.model.problems import Problems, shown
from dstack.model.retention import DEFAULT, Retention, parse_retention
from dstack.model.s3_place import OPTIONS, store_url
from dstack.model.trust import TriggerRule, check_rules
from dstack.model.yaml_text import yaml_text

CONFIG_LIMIT = 256 * 1024
PLACE = "config.yaml on the branch dstack/config"

_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\[\]:-]{1,255}(?:/[!-~]{0,500})?", re.ASCII)


class Settings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`store`: a URL. `lease` in seconds. `throttle`: the remote is pushed to as rarely as a forge.

    `controller_url`: where a controller tells of changes (--http). `stores`: where stores have moved, old URL → new
    URL. `retention`: see `kept`. `forge`: what is reported there; nothing without it. `signed`: only runs whose every
    commit is signed are executed; `signers`: the file of those who may, for a controller. `sign`: whether runs are
    signed. `triggers`: who may start runs by pushing. The others say how an S3 store is reached and written.
    """

    store: str | None = None
    lease: float = 60.0
    throttle: Literal["forge"] | None = None
    controller_url: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    addressing: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    stores: dict[str, str] = {}
    retention: str | None = None
    forge: ForgeSettings | None = None
    signed: bool = False
    signers: str | None = None
    sign: bool | Literal["auto"] = "auto"
    triggers: tuple[TriggerRule, ...] = ()

    @property
    def kept(self) -> Retention:
        """How long finished runs stay before they are archived."""
        return parse_retention(self.retention) if self.retention is not None else DEFAULT

    @property
    def store_url(self) -> str | None:
        """The store's whole URL, with all that says how it is reached: that is what a run keeps."""
        return self.store and store_url(self.store, {name: getattr(self, name) for name in OPTIONS})


def parse_settings(text: bytes | None) -> Settings:
    """Raises Invalid, naming `config.yaml`. No text means the defaults."""
    if text is None:
        return Settings()
    problems = Problems(PLACE)
    root = parse_document(text, problems, limit=CONFIG_LIMIT)
    problems.check()
    try:
        settings = convert({} if root is None else _plain(root) or {}, Settings)
    except msgspec.ValidationError as error:
        msg = f"{PLACE} can't be read: {error}"
        raise Invalid(msg) from error
    try:
        _ = settings.kept
        if settings.forge:
            settings.forge.check()
        check_rules(settings.triggers)
        check_url(settings.controller_url)
    except Invalid as error:
        msg = f"{PLACE}: {error}"
        raise Invalid(msg) from error
    if not 1 <= settings.lease <= 86400:  # noqa: PLR2004 (a second to a day)
        msg = f"{PLACE}: lease is {settings.lease}; give seconds from 1 to 86400"
        raise Invalid(msg)
    return settings


def check_url(url: str | None) -> None:
    """The address of a controller. Raises Invalid."""
    if url is None:
        return
    if not _ADDRESS.fullmatch(url):
        msg = f"controller_url is {shown(url)}; write it like `https://dstack.example.org`, without a password"
        raise Invalid(msg)


def settings_text(settings: Settings) -> str:
    """The text of `config.yaml`."""
    given = {key: value for key, value in sorted(msgspec.to_builtins(settings).items()) if value is not None}
    return yaml_text(given)


def _plain(node: Node) -> object:
    """The node as msgspec takes it. yaml's own loader won't do: deep or self-merging text crashes or drowns it."""
    if isinstance(node, Mapping):
        return {key.text: _plain(value) for key, value in node.entries}
    return _value(node) if isinstance(node, Scalar) else [_plain(item) for item in node.items]


def _value(scalar: Scalar) -> object:
    typed = (scalar.boolean, scalar.integer, scalar.number)
    return None if scalar.null else next((value for value in typed if value is not None), scalar.text)
