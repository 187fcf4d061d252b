"""The wrapper around a process attempt: runs its commands, keeps output and exit code on disk, and outlives the runner.

A program of its own, started for every attempt. So its modules import only what loads fast (`signal`, `json`, `typing`
and `subprocess` cost 4 to 8 ms each), nothing of dstack but each other, and no site packages.
"""
