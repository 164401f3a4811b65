"""An execution point's cached manifest on a disk that fails at each write; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.keys_document import KeysDocument
from publisher.contract.manifest import Envelope, Index
from publisher.resolver.system.notes import Warnings
from publisher.resolver.transfer.sources import DirectorySource
from publisher.resolver.trust import manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.signature_cache import SignatureCache
from tests.support.ep.execution_point import NOW, REPOSITORY, Key, lay_down, record, revision, with_keys
from tests.support.ep.two_levels import keys_document

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.machine.failing_writes import FailingDisk

NAME = "htc/rocky:9"
ROOT, OLD, NEW = Key(), Key(), Key()
HOUR = 3600


class RemoteSource(DirectorySource):
    """A directory that is polled like a server."""

    local = False


def main(failing: FailingDisk) -> None:
    """Load a new revision, which another key has signed because the old one is revoked, with an error at each write."""
    origin, before, disk = failing.where / "origin", failing.where / "before", failing.root
    old = with_keys(revision([record(NAME, "old")], OLD, serial=1), keys_document(OLD, root=ROOT))
    new = with_keys(revision([record(NAME, "new")], NEW, serial=2), keys_document(NEW, root=ROOT, version=2))
    stolen = with_keys(revision([record(NAME, "bad")], OLD, serial=9), keys_document(OLD, root=ROOT))

    def load(cache: Path, now: int = NOW + HOUR) -> tuple[str, list[str]]:
        """Return what is served, and the notes about files that cannot be written."""
        notes = Warnings()
        try:
            found = manifest_loader.load(
                [RemoteSource(str(origin))],
                ManifestCache(str(cache / "manifest")),
                keys={ROOT.keyid: ROOT.pem},
                repository=REPOSITORY,
                now=now,
                notes=notes,
                verify=SignatureCache(str(cache / "manifest" / "verified")).verify,
                refresh=60.0,
            )
            known = found.record(NAME)
        except ManifestError:
            return "refused", notes.all
        assert known is not None
        return known.reference, [line for line in notes.all if "cannot" in line]

    def restore() -> None:
        shutil.rmtree(disk, ignore_errors=True)
        shutil.copytree(before, disk)
        lay_down(new, origin)

    def work() -> None:
        found, notes = load(disk)
        assert found == "new", "a cache that cannot be written holds nothing back"
        silent = [line for line in notes if "look at the disk" not in line or str(disk) not in line]
        assert not silent, f"messages that do not say what to do: {silent}"

    def check() -> None:
        for path in (disk / "manifest").rglob("*.json"):
            assert_whole(path, disk / "manifest")
        shutil.rmtree(origin)  # only what is cached is left
        found, _ = load(disk)
        assert found in {"old", "new", "refused"}
        if found != "old":
            lay_down(stolen, origin)
            assert load(disk, NOW + 2 * HOUR)[0] in {"new", "refused"}, "a revoked key is not trusted again"
        lay_down(new, origin)
        assert load(disk, NOW + 3 * HOUR) == ("new", [])
        shutil.rmtree(origin)
        assert load(disk, NOW + 3 * HOUR) == ("new", []), "all of it is cached now"

    lay_down(old, origin)
    assert load(before, NOW) == ("old", [])
    failing.fail(work, check, restore=restore)


def assert_whole(path: Path, cache: Path) -> None:
    """Assert that a file of the cache is complete and signed: readers open it without a lock."""
    content = path.read_bytes()
    name = str(path.relative_to(cache))
    if name == manifest.INDEX_NAME:
        Index.parse(Envelope.parse(content).payload, REPOSITORY)
    elif name == "keys.json":
        keys = Envelope.parse(content).keys
        assert keys is not None
        KeysDocument.parse(keys.payload, REPOSITORY)
    elif not path.name.startswith("."):
        manifest.Shard.parse(content, path.name.partition(".")[0])
