from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.build import sif
from publisher.resolver.transfer.sif_header import HEADER_BYTES, SifHeader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("arch", ["386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips64le", "s390x", "riscv64"])
def test_what_the_publisher_writes_is_read(tmp_path: Path, arch: str) -> None:
    path = tmp_path / "image.sif"
    path.write_bytes(bytes(sif.DATA_OFFSET) + b"hsqs" + bytes(5000))
    sif.write_sif_header(path, architecture=arch, identity=bytes(16), epoch=1)
    header = SifHeader.parse(path.read_bytes()[:HEADER_BYTES])
    assert header is not None
    assert (header.arch, header.end) == (arch, path.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"<html>" * 100, bytes(500), bytes(32) + b"SIF_MAGIC\0"])
def test_other_files_are_not_sifs(content: bytes) -> None:
    assert SifHeader.parse(content) is None


def test_an_unknown_architecture_is_called_unknown() -> None:
    header = SifHeader.parse(bytes(32) + b"SIF_MAGIC\0" + b"01\x0099\0" + bytes(200))
    assert header is not None
    assert header.arch == "unknown"
