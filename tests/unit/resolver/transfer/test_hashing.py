from __future__ import annotations

import hashlib
import os
from contextlib import closing
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.resolver.transfer.hashing import FileHasher

if TYPE_CHECKING:
    import pytest


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=3000), st.none()), max_size=30), st.binary(max_size=3000))
def test_the_hash_is_that_of_the_file_however_it_grew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | None], before: bytes
) -> None:
    """None is a new beginning."""
    path = tmp_path_factory.mktemp("hashing") / "file"
    path.write_bytes(before)
    with path.open("r+b", buffering=0) as file, closing(FileHasher(file.fileno(), len(before))) as hashing:
        file.seek(0, os.SEEK_END)
        for step in steps:
            if step is None:
                file.seek(0)
                hashing.restart(file.truncate)
            else:
                file.write(step)
                hashing.set_size(file.tell())
        assert hashing.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
