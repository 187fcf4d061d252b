"""`python -I -S …/runner/shim/__main__.py FOLDER INSTANCE KEY`: the last two are there for who looks for it in `ps`."""

import os
import sys

# At the end, so that what is installed beside dstack can't stand before the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from runner.shim.attempt import main

if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # skips the interpreter's own tidying up, which nobody waits for
