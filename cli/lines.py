"""What the commands show of runs and jobs: the lines of `dstack.model.lines`."""

from dstack.model.lines import JobLine, Origin, RunLine, odd_line, run_line

__all__ = ["JobLine", "Origin", "RunLine", "odd_line", "run_line"]
