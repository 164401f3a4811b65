"""The entry point of ``python3 -m publisher.resolver`` and of the single-file form."""

from __future__ import annotations

import sys

from publisher.resolver.cli import main

if __name__ == "__main__":
    sys.exit(main())
