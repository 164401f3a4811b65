"""Layers are read as Go's ``archive/tar`` reads them, which Docker, containerd, umoci and Apptainer use."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.support.images import raw_tar, tar_mutations
from tests.support.images.go_comparison import compare
from tests.support.images.go_reader import GoReader, is_available

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

_ROUNDS, _ARCHIVES = 8, 1000


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoReader]:
    if not is_available():
        pytest.skip("NOT TESTED: whether layers are read as Go reads them; Go is not installed (ci/install-system --tests)")
    with GoReader(tmp_path_factory.mktemp("go")) as reader:
        yield reader


_WHOLE = {name: members + raw_tar.END for name, members in (raw_tar.ODD | raw_tar.GNU_SPARSE).items()} | raw_tar.EARLY_ENDS


@pytest.mark.parametrize("name", _WHOLE)
def test_odd_archives_are_read_as_go_reads_them(name: str, go: GoReader) -> None:
    assert compare(_WHOLE[name], go), "one of the readers refuses it"


@pytest.mark.parametrize("kind", [b"0", b"\0"])
def test_a_negative_size_is_refused_as_go_refuses_it(kind: bytes, go: GoReader) -> None:
    """Go looks at the size before it takes an entry without a type, whose name ends with a slash, for a directory."""
    archive = raw_tar.header(b"d/", kind, mode=b"0000755\0", size=raw_tar.number(-1)) + raw_tar.END
    assert not compare(archive, go)


@pytest.mark.parametrize("part", range(_ROUNDS))
def test_broken_archives_are_read_as_go_reads_them(part: int, go: GoReader) -> None:
    read = 0
    for number in range(_ARCHIVES):
        random = Random(f"{part}-{number}")  # the failing archive can be made again from these two
        read += compare(tar_mutations.mutated(tar_mutations.start(random), random), go)
    assert read > _ARCHIVES // 4, "too few archives were read by both: the comparison says little"
