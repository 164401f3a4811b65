from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.stratum import StratumZero

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = b"--\n0123abcd\nS99\nE20990101000000\n\x00\xff"


def stratum(where: Path, published: bytes | None = None, whitelist: bytes | None = None) -> StratumZero:
    for name, content in ((".cvmfspublished", published), (".cvmfswhitelist", whitelist)):
        if content is not None:
            (where / name).write_bytes(content)
    return StratumZero(f"file://{where}", timeout=5)


def test_the_revision_is_the_manifests_and_not_what_follows_it(tmp_path: Path) -> None:
    assert stratum(tmp_path, b"C0123\nB1024\nS42\nNimages.example.org\n" + SIGNATURE).revision() == 42


def test_the_whitelist_says_when_it_expires(tmp_path: Path) -> None:
    whitelist = b"20200101000000\nE20300102030405\nNimages.example.org\n" + SIGNATURE
    assert stratum(tmp_path, whitelist=whitelist).whitelist_expiry() == 1893553445


@pytest.mark.parametrize("content", [None, b"", b"<html>S1</html>", b"C0123\n" + SIGNATURE, b"Sx\n", b"E20309999999999\n"])
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    there = stratum(tmp_path, content, content)
    for look in (there.revision, there.whitelist_expiry):
        with pytest.raises(RepositoryError, match="stratum 0 file://") as error:
            look()
        assert "web server" in (error.value.hint or "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/cvmfs/x", "nothing", "http://[::"])
def test_a_stratum_that_does_not_answer_is_an_error(url: str) -> None:
    with pytest.raises(RepositoryError, match="cannot be read"):
        StratumZero(url, timeout=5).revision()
