"""A model of which letter follows which: small enough to be trained without any library, large enough to be trained."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path

LETTERS = "\n abcdefghijklmnopqrstuvwxyz.,'"
Logits = list[list[float]]


def encode(text: str) -> list[int]:
    """The places of its letters; what isn't known is a space."""
    return [LETTERS.index(letter) if letter in LETTERS else 1 for letter in text.lower()]


def load(path: Path) -> Logits:
    """A model that was saved."""
    return json.loads(path.read_text())["logits"]


def probabilities(row: list[float]) -> list[float]:
    """Softmax."""
    most = max(row)
    weights = [math.exp(value - most) for value in row]
    total = sum(weights)
    return [weight / total for weight in weights]


def loss(logits: Logits, text: list[int]) -> float:
    """Mean bits of surprise at each next letter."""
    rows = [probabilities(row) for row in logits]
    return -sum(math.log2(rows[here][then]) for here, then in pairwise(text)) / (len(text) - 1)


def step(logits: Logits, text: list[int], rate: float) -> None:
    """One step down the gradient of the loss."""
    counts = [[0] * len(LETTERS) for _ in LETTERS]
    for here, then in pairwise(text):
        counts[here][then] += 1
    for row, seen in zip(logits, counts, strict=True):
        total = sum(seen)
        for place, (one, wanted) in enumerate(zip(probabilities(row), seen, strict=True)):
            row[place] -= rate * (total * one - wanted) / len(text)


def write(logits: Logits, length: int, seed: int) -> str:
    """A text as the model has it."""
    chance, here, letters = random.Random(seed), 1, []
    for _ in range(length):
        here = chance.choices(range(len(LETTERS)), probabilities(logits[here]))[0]
        letters.append(LETTERS[here])
    return "".join(letters)
