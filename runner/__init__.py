"""`dstack-runner`: picks up the attempts assigned to it, executes them, and reports."""
