"""A publication on a disk that fails at each write; runs as a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, CURRENT
from publisher.maintain import block, verify
from publisher.publish.manifest.manifest_copy import ManifestCopy
from publisher.state import paths
from publisher.state.snapshot import load
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.machine.failing_writes import must_advise
from tests.support.publisher.built_values import answer, digest, entry
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from publisher.errors import PublisherError
    from tests.support.machine.failing_writes import FailingDisk

OLD, BAD = "htc/rocky:9", "htc/bad:1"


def main(failing: FailingDisk) -> None:
    """Publish a changed image and a new one, while another is blocked, with an error at each write."""
    before, disk = failing.where / "before", failing.root
    before.mkdir()
    place = Place(before)
    place.publish(place.publication(), (entry(OLD), answer("old")), (entry(BAD), answer("bad")))
    publication = place.publication()
    snapshot, _ = publication.open()
    block.apply(publication, snapshot, block.plan_block(snapshot, BAD, place.now, "stolen"))

    def restore() -> None:
        shutil.rmtree(disk, ignore_errors=True)
        shutil.copytree(before, disk, symlinks=True)
        place.repository, place.origin = DirectoryRepository(disk / "cvmfs", NAME), DirectoryOrigin(disk / "osdf")
        place.copy = ManifestCopy(disk / "state" / "published")

    def work() -> None:
        silent = [str(failure) for failure in publish() if not failure.hint]
        assert not silent, f"messages that do not say what to do: {silent}"

    def publish() -> list[PublisherError]:
        result = place.publish(place.publication(), (entry(OLD), answer("new")), (entry("htc/other:1"), answer("other")))
        return [*result.failed.values(), *([] if result.behind is None else [result.behind])]

    def check() -> None:
        assert_readable(place)
        assert_sound(place)
        assert publish() == []
        assert_sound(place)
        assert (disk / "cvmfs" / OLD / "content").read_text() == digest("new linux/amd64")
        place.in_both()

    failing.fail(lambda: must_advise(work), check, restore=restore)


def assert_readable(place: Place) -> None:
    """Assert that readers can use both manifests as they are, before any repair: all that they name is there."""
    for read in (
        lambda name: place.repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}"),
        lambda name: place.origin.read(f"{paths.ORIGIN_MANIFEST}/{name}"),
    ):
        snapshot = load(read, NAME, (place.signer.public,))
        assert snapshot is not None
        assert [version.state for _, version in snapshot.records[BAD].versions()] == [BLOCKED]
        for build in verify.select_builds(snapshot, ()):
            assert list(verify.verify_sif(place.origin, build)) == []
            assert build.version.sandbox is None or place.repository.exists(build.version.sandbox)


def assert_sound(place: Place) -> None:
    """Assert that readers find nothing wrong: every signed manifest names only what is there, and the block holds."""
    repository, origin = DirectoryRepository(place.repository.root, NAME), DirectoryOrigin(place.origin.root)
    snapshot, _ = place.publication().open()
    assert list(verify.verify_manifest(repository, origin, place.now, (place.signer.public,))) == []
    assert list(verify.verify_links(repository, snapshot)) == []
    for build in verify.select_builds(snapshot, ()):
        assert list(verify.verify_sif(origin, build)) == []
        if build.version.sandbox is not None and build.version.state == CURRENT:
            content = (repository.root / build.version.sandbox / "content").read_bytes()
            assert build.version.sif is not None
            assert hashlib.sha256(content).hexdigest() == build.version.sif.sha256
    assert [version.state for _, version in snapshot.records[BAD].versions()] == [BLOCKED]
    assert not repository.exists(BAD)
