"""The resolver as it is shipped: a single file, built by ``ci/pyz``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def release(output: Path) -> Path:
    """Build ``image-resolver.pyz`` at ``output``, and return that path."""
    subprocess.run([ROOT / "ci/pyz", "--output", output], check=True, capture_output=True)
    return output
