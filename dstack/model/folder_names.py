"""A matrix combination as the name of a folder."""

import re
from collections.abc import Mapping

from dstack.model.codec import blob_id

_UNSAFE = re.compile(r"[^A-Za-z0-9._+:@~ -]|^ | $", re.ASCII)
_MAX_FOLDER = 200


def combination_folder(matrix: Mapping[str, str]) -> str:
    """`name=value,…` as one file name: safe, and different for different combinations."""
    text = ",".join(f"{name}={_UNSAFE.sub(_percent, value)}" for name, value in sorted(matrix.items()))
    return text if len(text) <= _MAX_FOLDER else f"{text[:_MAX_FOLDER]}~{blob_id(text.encode())[:12]}"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
