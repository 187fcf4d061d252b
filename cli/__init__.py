"""The `dstack` and `dstack-runner` commands: one file per command, and what they share."""
