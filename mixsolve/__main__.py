"""`python -m mixsolve`: the command line."""

import sys

from mixsolve.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
