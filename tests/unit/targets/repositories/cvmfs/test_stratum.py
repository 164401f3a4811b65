from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.stratum import StratumZero
from tests.support.registries.name_server import NameServer
from tests.support.registries.scripted_http import ScriptedServer, says

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


async def test_the_server_that_the_operator_has_configured_may_have_any_address() -> None:
    async with ScriptedServer({"GET /cvmfs/x/.cvmfspublished": [says(200, b"S42\n" + SIGNATURE)]}) as server:
        port = server.address.rpartition(":")[2]
        there = StratumZero(f"http://stratum.example:{port}/cvmfs/x", resolver=NameServer(["127.0.0.1"]))
        assert await asyncio.to_thread(there.revision) == 42


async def test_a_stratum_leads_to_no_other_server() -> None:
    async with ScriptedServer({}) as other, ScriptedServer({}) as server:
        moved = says(302, Location=f"http://other.example:{other.address.rpartition(':')[2]}/")
        server.routes["GET /.cvmfspublished"] = [moved]
        names = NameServer(["127.0.0.1"])
        there = StratumZero(f"http://stratum.example:{server.address.rpartition(':')[2]}", resolver=names)
        with pytest.raises(RepositoryError, match="its web server answers with status 302"):
            await asyncio.to_thread(there.revision)
        assert (names.asked, other.asked) == (1, [])


async def test_an_answer_that_does_not_end_is_not_read_to_its_end() -> None:
    async with ScriptedServer({"GET /.cvmfspublished": [says(200, bytes(1 << 17))]}) as server:
        with pytest.raises(RepositoryError, match="more than the 65536 bytes"):
            await asyncio.to_thread(StratumZero(f"http://{server.address}").revision)
