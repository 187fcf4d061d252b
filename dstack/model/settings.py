"""The settings shared by all, in `config.yaml` on the branch `dstack/config`."""

from typing import Any

import msgspec
import yaml

from dstack.model.codec import Value
from dstack.model.errors import Invalid

CONFIG_LIMIT = 256 * 1024


class Settings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`store`: a URL. `lease` in seconds. `throttle`: `forge` asks all parts to push rarely."""

    store: str | None = None
    lease: float = 60.0
    throttle: str | None = None


def parse_settings(text: bytes | None) -> Settings:
    """Raises Invalid, naming `config.yaml`. No text means the defaults."""
    if text is None:
        return Settings()
    if len(text) > CONFIG_LIMIT:
        msg = f"config.yaml on the branch dstack/config is {len(text)} bytes long; at most {CONFIG_LIMIT} are accepted"
        raise Invalid(msg)
    try:
        data: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506 (both safe)
        settings = msgspec.convert(data, Settings)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError, ValueError) as error:
        msg = f"config.yaml on the branch dstack/config can't be read: {error}"
        raise Invalid(msg) from error
    if not 1 <= settings.lease <= 86400:  # noqa: PLR2004 (a second to a day)
        msg = f"config.yaml on the branch dstack/config: lease is {settings.lease}; give seconds from 1 to 86400"
        raise Invalid(msg)
    return settings


def settings_text(settings: Settings) -> str:
    """The text of `config.yaml`."""
    return yaml.safe_dump(msgspec.to_builtins(settings), sort_keys=True, default_flow_style=False)
