"""The units and the cron file of ci/units."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

UNITS = Path(__file__).resolve().parents[3] / "ci" / "units"


def test_a_failed_run_has_its_exit_status_in_cron_too() -> None:
    text = (UNITS / "ospool-image-publisher.cron").read_text()
    lines = re.findall(r"^\S+ \S+ +\S+ \S+ \S+ +root +cd / && (?:nice -n 19 )?\S+/publisher (.*)$", text, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["sync", "verify"]
    for line in lines:
        redirections = " ".join(re.findall(r"> .*$", line)).replace("logger -t publisher", "cat")
        assert subprocess.run(["/bin/bash", "-c", f"(exit 7) {redirections}"], check=False).returncode == 7
