"""What an engine says while it pulls an image, folded into one line for people. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_DONE = frozenset({"Pull complete", "Already exists", "Download complete"})
_HERE = frozenset({"Pull complete", "Already exists"})
MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: bytes that have come, of how many, and whether it is here."""

    come: int = 0
    size: int = 0
    here: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is. Changes with every line that says more."""

    layers: Mapping[str, Layer] = field(default_factory=dict)

    def with_line(self, line: Mapping[str, Any]) -> "Progress":
        """With one line of the engine's (API, "Create an image": `id`, `status`, `progressDetail`)."""
        name, status = line.get("id"), line.get("status")
        if not isinstance(name, str) or not isinstance(status, str) or status.startswith("Pulling from"):
            return self
        before = self.layers.get(name, Layer())
        detail = line.get("progressDetail") or {}
        come, size = _number(detail.get("current")), _number(detail.get("total"))
        now = replace(before, here=before.here or status in _HERE)
        if status in _DONE:
            now = replace(now, come=max(now.come, now.size))
        elif status == "Downloading":
            now = replace(now, come=come, size=max(size, come))
        return Progress({**self.layers, name: now})

    @property
    def come(self) -> int:
        """Bytes that have come, of all layers."""
        return sum(layer.come for layer in self.layers.values())

    @property
    def size(self) -> int:
        """Bytes of all layers whose size was told."""
        return sum(layer.size for layer in self.layers.values())

    def __str__(self) -> str:
        """For a log: `3 of 7 layers, 45 of 120 MB`. Layers whose size nobody has told yet don't count in MB."""
        if not self.layers:
            return "asking the registry"
        layers = self.layers.values()
        text = f"{sum(layer.here for layer in layers)} of {len(layers)} layers"
        return f"{text}, {self.come // MEGA} of {-(-self.size // MEGA)} MB" if self.size else text


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
