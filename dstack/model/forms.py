"""JSON Schema of single values: what the readers of `fields`, `units`, `names` and `folder_paths` take, at most."""

from collections.abc import Iterable, Mapping

from dstack.model.language import Table

Form = dict[str, object]

NUMBER = r"[0-9]{1,20}(\.[0-9]{1,9})?"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_.-]{0,99}"
SHELL_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
VOLUME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
WORKFLOW = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
TAG = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"

SCALAR: Form = {"type": ["string", "number", "boolean"]}
TRUTH: Form = {"type": "boolean"}
_INSIDE = r"^(?!\s*$)(?!~)(?!(.*/)?\.\.(/|$))"
NAME: Form = {"type": ["string", "boolean"], "maxLength": 200, "pattern": f"^{SHELL_NAME}$"}


def text(pattern: str = r"\S") -> Form:
    """A text that isn't blank; numbers and truths are texts too."""
    return {**SCALAR, "pattern": pattern}


def whole(least: int, most: int) -> Form:
    """A whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}


def word(words: Iterable[str]) -> Form:
    """One of some words."""
    return {"enum": [str(one) for one in words]}


def measured(units: Iterable[str], *, size: bool = False) -> Form:
    """A duration in these units, falling; or a size."""
    if size:
        return {"type": "string", "pattern": rf"^\s*{NUMBER} ?[KMGTPkmgtp]?[iI]?[bB]\s*$"}
    pieces = "".join(rf"({NUMBER} ?{unit}\s*)?" for unit in units)
    return {"type": "string", "pattern": rf"^(?=.*[0-9])\s*{pieces}$"}


def path() -> Form:
    """A path that doesn't leave its folder; nothing in it is replaced."""
    return text(rf"{_INSIDE}[^*?]*$")


def folder() -> Form:
    """A folder of the repository."""
    return text(rf"{_INSIDE}(?!/)")


def glob() -> Form:
    """A glob from the top of the repository."""
    return text(rf"{_INSIDE}(?![/!])[^\\]*$")


def pattern(*, refs: bool = False) -> Form:
    """A pattern of `on`, of paths or of `refs`: a glob, perhaps taken back."""
    return text(rf"^!?(?!\s*$)(?![/!~])(?!(.*/)?\.\.(/|$)){'(?!refs/)' if refs else ''}[^\\]*$")


def many(form: Form, *, least: int = 0) -> Form:
    """A list."""
    return {"type": "array", "items": form, **({"minItems": least} if least else {})}


def either(*forms: Form) -> Form:
    """One of several forms."""
    return {"anyOf": list(forms)}


def table(keys: Table, forms: Mapping[str, Form], *, required: Iterable[str] = ()) -> Form:
    """A mapping of these keys and no others, each with its sentence. Every key of the table needs its form."""
    properties = {name: {"description": help_, **forms[name]} for name, help_ in keys.items()}
    needed = list(required)
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
    }


def named(form: Form, names: str, *, known: Mapping[str, object] | None = None) -> Form:
    """A mapping of any names (a pattern) to one form; `known` names have their own."""
    return {
        "type": "object",
        "properties": dict(known or {}),
        "propertyNames": {"pattern": f"^{names}$"},
        "additionalProperties": form,
    }
