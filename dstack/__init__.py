"""The shared kernel of dstack: a pure model, a ledger in git, and a store for bytes."""

__version__ = "0.1.0"
