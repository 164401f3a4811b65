"""Lists of other projects, which are not part of this repository: beside its checkout, or in the directory SHARED_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.checkout import ROOT


def shared(name: str) -> Path:
    """Return the path of a shared file; skip the test if the file is missing."""
    path = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data") / name
    if not path.exists():
        pytest.skip(f"NOT TESTED: {path} is missing; set SHARED_DATA to the directory of the shared data")
    return path
