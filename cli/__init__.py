"""The `dstack` command: one file per command; composes the other parts for `dstack up`."""
