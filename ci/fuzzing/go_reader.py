"""The comparison of the publisher's reader of layers with Go's ``archive/tar``, for as long as wanted."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from random import Random

from tests.support.images import tar_mutations
from tests.support.images.go_comparison import compare
from tests.support.images.go_reader import GoReader, is_available


def compare_readers(seconds: float, found: Path) -> bool:
    """Compare both readers on new archives; return whether they agree.

    Args:
        seconds: how long.
        found: directory for an archive that they read differently.
    """
    if not is_available():
        print("go: NOT COMPARED: Go is not installed")
        return True
    with tempfile.TemporaryDirectory(prefix="go-") as temporary, GoReader(Path(temporary)) as go:
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            random = Random()
            archive = tar_mutations.mutated(tar_mutations.start(random), random)
            try:
                compare(archive, go)
            except AssertionError as error:
                (found / "go-archive").write_bytes(archive)
                print(f"go: {found / 'go-archive'}: {error}")
                return False
            count += 1
    print(f"go: {count} inputs in {seconds:g} s")
    return True
