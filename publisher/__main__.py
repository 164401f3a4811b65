"""Run the command line: ``python -m publisher``."""

from __future__ import annotations

from publisher.cli.main import main

main()
