"""`python -m asyncruns`."""

from __future__ import annotations

import sys

from asyncruns.cli import main

if __name__ == "__main__":
    sys.exit(main())
