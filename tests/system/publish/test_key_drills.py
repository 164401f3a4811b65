"""The drills of docs/keys.md, step by step: the real publisher, and the real resolver with the root's public key alone."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.keys_document import KeysDocument
from publisher.contract.manifest import Envelope
from publisher.state import snapshot as snapshots
from publisher.state.signing import Signer
from publisher.state.snapshot import Snapshot
from tests.support.images.printing_image import push
from tests.support.publisher.key_host import NAME, KeyHost

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

IMAGE = "drill/image:1"
THIEFS = 999
"""Serial of the manifest that a thief of a key signs."""
UNKNOWN, UNTRUSTED, REFUSED = 1, 4, 2
"""Exit statuses: of the resolver for an image that is not listed and for a manifest without trust, and of the publisher."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, registry: RegistryServer) -> Path:
    """A host with one level of keys and one image."""
    where = tmp_path_factory.mktemp("published")
    where.chmod(0o755)
    where.parent.chmod(0o755)
    host = KeyHost(where, registry)
    push(registry, IMAGE)
    host.images(IMAGE)
    host.sync()
    return where


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer, published: Path) -> KeyHost:
    made = KeyHost(shared_path, registry)
    made.key.unlink()
    for name in ("images.example.org", "origin", "key.pem", "key.pem.pub"):
        source, target = published / name, shared_path / name
        shutil.copytree(source, target, symlinks=True) if source.is_dir() else shutil.copy2(source, target)
    made.images(IMAGE)
    made.give(made.root)
    return made


@pytest.fixture
def two_levels(host: KeyHost) -> KeyHost:
    """The host after "setting up"."""
    host.authorize(host.key)
    host.use_two_levels()
    host.sync()
    assert host.resolve(IMAGE).returncode == 0
    return host


def version(host: KeyHost) -> int:
    envelope = Envelope.parse((host.repository / ".publisher/index.json").read_bytes())
    assert envelope.keys is not None
    return KeysDocument.parse(envelope.keys.payload, NAME).version


def forge(host: KeyHost, key: Path, serial: int = THIEFS) -> None:
    """Store an empty manifest with a serial far ahead in the origin, as a thief of a key does, with the keys document there."""
    published = host.index()
    assert published is not None
    index = host.origin / "manifest/index.json"
    revision = snapshots.make_revision(Snapshot(NAME), Signer(key), serial=serial, now=published.generated)
    forged = Envelope.parse(revision.index)
    forged.keys = Envelope.parse(index.read_bytes()).keys
    index.write_bytes(forged.content())


def test_setting_up_and_renewing(host: KeyHost) -> None:
    said = host.authorize(host.key, days=20).stdout
    assert said.startswith(f"keys document of {NAME}, version 1: 1 signature(s) needed\n")
    host.use_two_levels()
    assert "may sign" not in host.sync().stderr
    assert host.resolve(IMAGE).returncode == 0
    assert host.run("verify").stdout == ""

    host.authorize(host.key)
    assert host.sync().said["notes"] == [
        "manifest published again: it was signed by other keys than this publisher's, or with another keys document"
    ]
    assert version(host) == 2
    assert host.sync().said["notes"] == []
    assert host.resolve(IMAGE).returncode == 0


def test_rotating_the_signing_key(two_levels: KeyHost) -> None:
    old, new = two_levels.key, two_levels.new_key("new.pem")
    two_levels.authorize(old, new)
    two_levels.key = new
    two_levels.sync()
    assert two_levels.resolve(IMAGE).returncode == 0
    two_levels.authorize(new)
    two_levels.sync()
    assert two_levels.resolve(IMAGE).returncode == 0
    forge(two_levels, old)
    assert two_levels.resolve(IMAGE).returncode == 0, "the old key signs nothing any more"
    two_levels.key = old
    refused = two_levels.run("sync")
    assert refused.returncode == REFUSED
    assert "does not let the key" in refused.stderr


def test_a_stolen_signing_key(two_levels: KeyHost) -> None:
    stolen = two_levels.key
    forge(two_levels, stolen)
    assert two_levels.resolve(IMAGE).returncode == UNKNOWN, "the thief's manifest has the highest serial: nothing is published"

    two_levels.key = two_levels.new_key("new.pem")
    two_levels.authorize(two_levels.key)
    without = two_levels.run("sync")
    assert without.returncode == 4
    assert "not signed by this publisher's key" in without.stderr
    two_levels.settings.append(f"--trusted-keys={stolen}.pub")
    assert two_levels.sync().results == {IMAGE: "unchanged"}
    two_levels.settings.pop()
    index = two_levels.index()
    assert index is not None
    assert index.serial > THIEFS, "above the thief's"
    for cache in ("cache", "another-cache"):
        assert two_levels.resolve(IMAGE, cache).returncode == 0, "no execution point was touched"
    after = two_levels.sync()
    assert (after.status, after.said["serial"], after.said["notes"]) == (0, index.serial, [])

    forge(two_levels, stolen, 2000)
    for cache in ("cache", "another-cache", "a-new-one"):
        assert two_levels.resolve(IMAGE, cache).returncode == 0


def test_several_signatures(two_levels: KeyHost) -> None:
    second = two_levels.new_key("second.pem")
    two_levels.authorize(two_levels.key, second, threshold=2)
    refused = two_levels.run("sync")
    assert refused.returncode == REFUSED
    assert "asks for signatures of 2 keys, and 1 are set" in refused.stderr
    two_levels.settings.append(f"--cosigning-keys={second}")
    assert "has 1 of the 2 signatures" in two_levels.run("sync").stderr
    two_levels.settings.append(f"--trusted-keys={two_levels.key}.pub")
    two_levels.sync()
    two_levels.settings.pop()
    assert two_levels.sync().status == 0
    assert two_levels.resolve(IMAGE).returncode == 0
    forge(two_levels, second)
    assert two_levels.resolve(IMAGE).returncode == 0, "one key is not enough"
    assert two_levels.resolve(IMAGE, "new").returncode == 0


def test_from_one_level_to_two(host: KeyHost) -> None:
    host.give(host.key)
    assert host.resolve(IMAGE, "old").returncode == 0
    host.authorize(host.key)
    host.use_two_levels()
    host.sync()
    assert host.resolve(IMAGE, "old").returncode == 0, "as before"
    host.give(host.root)
    for cache in ("old", "new"):
        assert host.resolve(IMAGE, cache).returncode == 0
    old, host.key = host.key, host.new_key("new.pem")
    host.authorize(old, host.key)
    host.sync()
    host.authorize(host.key)
    host.sync()
    assert host.resolve(IMAGE, "old").returncode == 0
    host.settings = []
    refused = host.run("sync")
    assert refused.returncode == 4
    assert "has a keys document, and this publisher has none" in refused.stderr


def test_another_root_key(two_levels: KeyHost) -> None:
    old, two_levels.root = two_levels.root, two_levels.new_key("new-root.pem")
    two_levels.give(old, two_levels.root)
    refused = two_levels.authorize(two_levels.key, check=False)
    assert refused.returncode == REFUSED
    assert "no root key has signed the keys document" in refused.stderr
    two_levels.document = two_levels.document.with_name("new-keys.json")
    two_levels.authorize(two_levels.key, version=2)
    two_levels.use_two_levels()
    two_levels.settings.append(f"--root-keys={old}.pub")
    two_levels.sync()
    two_levels.settings.pop()
    two_levels.give(two_levels.root)
    assert two_levels.resolve(IMAGE).returncode == 0
    assert two_levels.sync().status == 0
    two_levels.give(old)
    assert two_levels.resolve(IMAGE).returncode == UNTRUSTED


def test_what_the_root_key_must_not_sign(host: KeyHost) -> None:
    for signers, options, reason in (
        ([host.root], {}, "the root key must not sign the manifest itself"),
        ([host.key], {"threshold": 2}, "cannot give 2 signatures"),
        ([host.key], {"days": 36}, "36"),
    ):
        done = host.authorize(*signers, check=False, **options)
        assert done.returncode == REFUSED
        assert reason in done.stderr
    assert not host.document.exists()
    host.authorize(host.key, version=5)
    assert "is not above that of the previous" in host.authorize(host.key, check=False, version=5).stderr
    shown = json.loads(host.run("keys", "show", "--json", str(host.document), flags=[], check=True).stdout)
    assert (shown["version"], shown["threshold"], len(shown["keys"])) == (5, 1, 1)
    assert shown["schema"] == manifest.SCHEMA
    assert "no key may sign" not in host.run("keys", "show", str(host.document), flags=[], check=True).stdout
