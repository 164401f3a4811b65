"""Lists of other projects, which are not in this repository: beside its checkout, or where SHARED_DATA says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.checkout import ROOT


def shared(name: str) -> Path:
    """A file of the shared data; the test is skipped, loudly, where it is absent."""
    path = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data") / name
    if not path.exists():
        pytest.skip(f"NOT TESTED: {path} is absent; SHARED_DATA=DIR says where the shared data is")
    return path
