"""``python3 -m publisher.resolver``, and what the one-file form starts."""

from __future__ import annotations

import sys

from publisher.resolver.cli import main

if __name__ == "__main__":
    sys.exit(main())
