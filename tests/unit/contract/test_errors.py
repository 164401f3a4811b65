from __future__ import annotations

import errno
import os

import pytest

from publisher.contract.errors import os_reason

MISSING = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/srv/state/x")


@pytest.mark.parametrize(
    ("error", "said", "reason"),
    [
        (MISSING, "", "/srv/state/x: No such file or directory"),
        (MISSING, "cannot read /srv/state/x", "No such file or directory"),
        (OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/a", None, "/b"), "", "/a -> /b: Invalid cross-device link"),
        (OSError("no errno"), "", "no errno"),
        (ValueError("not text"), "", "not text"),
    ],
)
def test_a_failed_system_call_has_words_and_each_path_once_but_no_number(error: Exception, said: str, reason: str) -> None:
    assert os_reason(error, said) == reason
