"""The properties that ``ci/fuzz`` checks, for its initial archives and for its findings so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images import properties, raw_tar

if TYPE_CHECKING:
    from pathlib import Path


def patched(archive: bytes, at: int, content: bytes) -> bytes:
    """Return the archive with other bytes at an offset and valid checksums."""
    return properties.repaired(archive[:at] + content + archive[at + len(content) :])


EXTENDED = raw_tar.pax((b"path", b"b")) + raw_tar.file(b"a") + raw_tar.END
FOUND = {
    "junk where devices have their numbers": patched(raw_tar.file(b"a") + raw_tar.END, 329, b"z"),
    "junk in the mode of an extended header": patched(EXTENDED, 101, b"z"),
    "junk in the size of an extended header": patched(EXTENDED, 124, b"\0"),
    "junk for a magic number of an extended header": patched(EXTENDED, 257, b"USTAR"),
}


@pytest.mark.parametrize("name", raw_tar.ODD | raw_tar.GNU_SPARSE)
def test_the_stream_of_an_odd_archive_is_what_its_file_index_says(name: str, tmp_path: Path) -> None:
    properties.layer((raw_tar.ODD | raw_tar.GNU_SPARSE)[name] + raw_tar.END, tmp_path)
    assert (tmp_path / "files").exists(), "it was refused"


@pytest.mark.parametrize("name", FOUND)
def test_findings_of_the_fuzzer_are_fixed(name: str, tmp_path: Path) -> None:
    properties.layer(FOUND[name], tmp_path)


@pytest.mark.parametrize(
    "stream",
    [
        raw_tar.file(b"a", b"other"),
        raw_tar.file(b"a", mode=b"0000755\0"),
        raw_tar.file(b"a") * 2,
        b"",
        raw_tar.header(b"a", b"5"),
    ],
)
def test_a_stream_that_differs_from_the_file_index_is_detected(stream: bytes, tmp_path: Path) -> None:
    properties.layer(raw_tar.file(b"a") + raw_tar.END, tmp_path)
    with pytest.raises(AssertionError):
        properties._check(stream + raw_tar.END, tmp_path / "files")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{" * 1000, b'{"manifests": null}', b'{"config": {"size": -1}}'])
def test_documents_are_refused_or_can_be_used(body: bytes) -> None:
    properties.documents(body)
