from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator


settings.register_profile("here", database=None, deadline=None)  # nothing written into the checkout; speed is for ci/bench
settings.load_profile("here")


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """As tmp_path, but open to other users: pytest's own directories are closed to all but their owner."""
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
