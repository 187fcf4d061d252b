"""The state of all runs, in git. Objects by pygit2, transport by the `git` command."""
