from __future__ import annotations

import json
import subprocess
import sys

SLOW = ("docker", "requests", "git", "rich")
"""Libraries of which each takes a tenth of the start, and that few commands need."""


def test_a_command_starts_without_the_libraries_that_it_does_not_need() -> None:
    script = f"import json, sys, publisher.cli.main; print(json.dumps([name for name in {SLOW} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
