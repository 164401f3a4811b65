"""The trust root of a Sigstore instance whose TUF repository is on this machine, under a name that looks public."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from publisher.errors import UsageError
from publisher.net.addresses import AddressPolicy
from publisher.net.http_errors import HttpRefusal
from publisher.net.small_files import SmallFiles
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.provenance.sigstore_root import fetch_trust_root
from tests.support.registries.name_server import NameServer
from tests.support.registries.scripted_http import ScriptedServer, says

pytest.importorskip("sigstore")
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.scripted_http import Reply

THIS_HOST = AddressPolicy(networks=[ipaddress.ip_network("127.0.0.1/32")])
TRUST_ROOT = b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'


def routes(first: Path, **files: bytes) -> dict[str, list[Reply]]:
    """Return what the server of a TUF repository with these JSON files answers; its ``root.json`` goes into ``first``."""
    key = CryptoSigner.generate_ed25519()
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    root = Root(expires=until, consistent_snapshot=False)
    for role in ("root", "timestamp", "snapshot", "targets"):
        root.add_key(key.public_key, role)
    targets = {f"{name}.json": TargetFile.from_data(f"{name}.json", content) for name, content in files.items()}
    documents: dict[str, Metadata[Any]] = {
        "root": Metadata(root),
        "timestamp": Metadata(Timestamp(expires=until, snapshot_meta=MetaFile(1))),
        "snapshot": Metadata(Snapshot(expires=until, meta={"targets.json": MetaFile(1)})),
        "targets": Metadata(Targets(expires=until, targets=targets)),
    }
    for document in documents.values():
        document.sign(key)
    first.mkdir()
    (first / "root.json").write_bytes(documents.pop("root").to_bytes())
    answers = {f"GET /{name}.json": [says(200, document.to_bytes())] for name, document in documents.items()}
    return answers | {f"GET /targets/{name}.json": [says(200, content)] for name, content in files.items()}


def files(policy: AddressPolicy = THIS_HOST) -> SmallFiles:
    return SmallFiles(HttpRefusal(UsageError, untrusted=""), policy, proxies={}, resolver=NameServer(["127.0.0.1"]))


def url_of(server: ScriptedServer) -> str:
    return f"http://tuf.example:{server.address.rpartition(':')[2]}"


async def test_a_trust_root_is_fetched_once(tmp_path: Path) -> None:
    async with ScriptedServer(routes(tmp_path / "first", trusted_root=TRUST_ROOT)) as server:
        for _ in range(2):
            path = await asyncio.to_thread(
                fetch_trust_root, files(), url_of(server), first=tmp_path / "first", where=tmp_path / "tuf"
            )
            assert path.read_bytes() == TRUST_ROOT
        assert server.lines.count("GET /targets/trusted_root.json") == 1


async def test_one_that_the_package_brings_along_is_not_fetched(tmp_path: Path) -> None:
    async with ScriptedServer(routes(tmp_path / "first", trusted_root=TRUST_ROOT)) as server:
        (tmp_path / "first/trusted_root.json").write_bytes(TRUST_ROOT)
        path = await asyncio.to_thread(
            fetch_trust_root, files(), url_of(server), first=tmp_path / "first", where=tmp_path / "tuf"
        )
        assert path.read_bytes() == TRUST_ROOT
        assert "GET /targets/trusted_root.json" not in server.lines


async def test_one_that_is_not_signed_is_refused(tmp_path: Path) -> None:
    async with ScriptedServer(routes(tmp_path / "first", trusted_root=TRUST_ROOT)) as server:
        server.routes["GET /targets/trusted_root.json"] = [says(200, TRUST_ROOT.replace(b"0.1", b"6.6"))]
        with pytest.raises(UsageError, match="hash"):
            await asyncio.to_thread(fetch_trust_root, files(), url_of(server), first=tmp_path / "first", where=tmp_path / "tuf")


async def test_a_repository_without_one_is_refused(tmp_path: Path) -> None:
    async with ScriptedServer(routes(tmp_path / "first", other=b"{}")) as server:
        with pytest.raises(UsageError, match="has no trusted_root"):
            await asyncio.to_thread(fetch_trust_root, files(), url_of(server), first=tmp_path / "first", where=tmp_path / "tuf")


async def test_a_name_that_leads_to_this_host_is_not_asked(tmp_path: Path) -> None:
    async with ScriptedServer(routes(tmp_path / "first", trusted_root=TRUST_ROOT)) as server:
        with pytest.raises(UsageError, match="has no public address, so no request is sent to it"):
            await asyncio.to_thread(
                fetch_trust_root, files(AddressPolicy()), url_of(server), first=tmp_path / "first", where=tmp_path / "tuf"
            )
        assert server.asked == []


async def test_the_public_instance_is_asked_only_at_a_public_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    names = NameServer(["127.0.0.1"])
    with pytest.raises(UsageError, match=r"the public instance cannot be loaded: tuf-repo-cdn.* has no public address") as raised:
        await asyncio.to_thread(BundleVerifier(None, resolver=names).payload, b"{}", "who", "issuer")
    assert raised.value.hint == "check the setting sigstore_root"
    assert names.asked == 1
