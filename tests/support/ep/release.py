"""The resolver as it is shipped: one file, made by ``ci/release``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def release(output: Path) -> Path:
    """Make ``image-resolver.pyz`` at ``output``, which is returned."""
    subprocess.run([ROOT / "ci/release", "--output", output], check=True, capture_output=True)
    return output
