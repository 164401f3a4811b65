from __future__ import annotations

import hashlib
import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.resolver.transfer.hashing import FileHasher

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=3000), st.text("ab"), st.none()), max_size=30), st.binary(max_size=3000))
def test_the_hash_is_that_of_the_file_however_it_grew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | str | None], before: bytes
) -> None:
    """Bytes are received, texts are copied, and None is a new beginning."""
    path = tmp_path_factory.mktemp("hashing") / "file"
    path.write_bytes(before)
    with path.open("r+b", buffering=0) as file, closing(FileHasher(file.fileno(), len(before))) as hashing:
        file.seek(0, os.SEEK_END)
        for step in steps:
            if step is None:
                file.seek(0)
                hashing.restart(file.truncate)
            elif isinstance(step, str):
                file.write(step.encode())
                hashing.add(memoryview(step.encode()))
            else:
                file.write(step)
                hashing.set_size(file.tell())
        assert hashing.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_copied_is_flushed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = threading.Event()
    monkeypatch.setattr("publisher.resolver.transfer.hashing._FLUSH_BYTES", 10)
    monkeypatch.setattr("publisher.resolver.transfer.hashing.os.fdatasync", lambda _: flushed.set())
    with (tmp_path / "file").open("w+b", buffering=0) as file, closing(FileHasher(file.fileno(), 0)) as hashing:
        file.write(bytes(20))
        hashing.add(memoryview(bytes(20)))
        assert flushed.wait(60)
