"""Text of others within Markdown: whatever it holds, it is shown as it is, and does nothing."""

import re

LENGTH = 100

_HARMLESS = re.compile(r"[A-Za-z0-9 ]*|-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9 ,=%+/-]|(?<=[0-9])\.(?=[0-9])", re.ASCII)


class Markdown(str):
    """Markdown of our own, put in as it is."""

    __slots__ = ()


def shown(value: object) -> str:
    """A value as Markdown, on one line and not long: what jinja2 puts in wherever a template names a value.

    All but letters and digits is written by number, which no Markdown reader takes for a mark (CommonMark 0.31, 2.5),
    and stands in `<code>`, where forges look for no mention, no reference and no emoji.
    """
    if isinstance(value, Markdown):
        return value
    text = " ".join("".join(one if one.isprintable() else " " for one in str(value)).split())
    if len(text) > LENGTH:
        text = f"{text[: LENGTH - 1]}…"
    if _HARMLESS.fullmatch(text):
        return text
    return f"<code>{''.join(_written(text))}</code>"


def _written(text: str) -> list[str]:
    return [
        one if not one.isascii() or _PLAIN.match(text, place) else f"&#{ord(one)};" for place, one in enumerate(text)
    ]
