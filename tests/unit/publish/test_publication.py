from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from publisher.contract import manifest
from publisher.contract.records import BLOCKED, EXPIRING
from publisher.errors import AnotherRunError, OriginError, PublishedManifestError, RepositoryError, SpaceError
from publisher.maintain import block
from publisher.publish.publication import Publication
from publisher.state import paths
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from publisher.state.signing import Signer, new_key
from publisher.state.snapshot import Snapshot, make_revision
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.publisher.built_values import AMD64, ARM64, answer, digest, entry
from tests.support.publisher.prepublished import INDEX, NAME, NOW, Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_published_is_all_there(place: Place) -> None:
    published = place.publish(place.publication(), (entry("htc/rocky:9", [AMD64, ARM64]), answer("one", [AMD64, ARM64])))
    assert not published.failed
    root = place.repository.root
    for link, platform in (("htc/rocky:9", "linux/amd64"), (".arch/arm64/htc/rocky:9", "linux/arm64")):
        content = digest(f"one {platform}")
        assert os.readlink(root / link).startswith("../")  # noqa: PTH115 - the text of the link
        assert (root / link / "content").read_text() == content
        version = published.snapshot.records["htc/rocky:9"].current(platform[6:])
        assert version is not None
        assert version.sandbox is not None
        assert version.sif is not None
        assert (root / version.sandbox).samefile(root / link)
        assert place.origin.size(version.sif.path) == version.sif.size
    assert (root / ".images" / ".cvmfscatalog").read_bytes() == b""
    assert place.index().serial == 1
    place.in_both()


def test_a_chunk_table_is_in_the_origin_before_a_record_names_it(place: Place) -> None:
    place.tables = True
    tables: list[list[str]] = []
    place.watch = lambda _: tables.append([name for name in place.origin.names("sif") if name.endswith(".chunks")])
    published = place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    version = published.snapshot.records["htc/rocky:9"].current("amd64")
    assert version is not None
    assert version.sif is not None
    assert version.sif.chunks is not None
    assert tables == [[version.sif.chunks.path]]
    assert place.origin.size(version.sif.chunks.path) == version.sif.chunks.size


def test_the_manifest_is_written_after_what_it_names(place: Place) -> None:
    seen: list[bool] = []
    place.watch = lambda _: seen.append(place.repository.exists(INDEX))
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    assert seen == [False]


def test_a_moved_tag_leaves_the_old_data_and_moves_the_link(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    place.now += 100
    place.publish(publication, (entry("htc/rocky:9"), answer("two")))
    root = place.repository.root
    assert (root / "htc/rocky:9" / "content").read_text() == digest("two linux/amd64")
    assert (root / paths.sandbox_path(digest("one linux/amd64")) / "content").is_file()
    assert place.index().serial == 101, "at most one serial a second is given out"
    assert len([name for name in place.origin.names("sif")]) == 2  # noqa: C416 - it is an iterator


def test_a_failing_entry_does_not_stop_the_others(place: Place) -> None:
    place.broken = {digest("bad linux/amd64")}
    published = place.publish(place.publication(), (entry("htc/bad:1"), answer("bad")), (entry("htc/good:1"), answer("good")))
    assert list(published.failed) == ["htc/bad:1"]
    assert sorted(published.snapshot.records) == ["htc/good:1"]
    assert not place.repository.exists("htc/bad:1")
    assert not place.repository.exists(paths.sandbox_path(digest("bad linux/amd64")))
    place.in_both()


def test_an_entry_with_one_broken_platform_leaves_nothing_of_the_others(place: Place) -> None:
    place.broken = {digest("one linux/arm64")}
    other = (entry("htc/good:1"), answer("good"))
    place.publish(place.publication(), (entry("htc/rocky:9", [AMD64, ARM64]), answer("one", [AMD64, ARM64])), other)
    assert not place.repository.exists(paths.sandbox_path(digest("one linux/amd64")))


def test_where_all_entries_fail_nothing_is_published(place: Place) -> None:
    place.broken = {digest("bad linux/amd64")}
    published = place.publish(place.publication(), (entry("htc/bad:1"), answer("bad")))
    assert list(published.failed) == ["htc/bad:1"]
    assert published.snapshot.serial == 0
    assert place.repository.read(INDEX) is None


def test_a_full_disk_discards_the_whole_transaction(place: Place) -> None:
    def full(_: Path) -> None:
        raise SpaceError("no room left")

    place.watch = full
    with pytest.raises(SpaceError):
        place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    assert place.repository.read(INDEX) is None
    assert place.repository.links() == {}


def test_one_content_under_two_names_is_one_sandbox(place: Place) -> None:
    unpacked: list[Path] = []
    place.watch = unpacked.append
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")), (entry("htc/rocky:latest"), answer("one")))
    assert len(unpacked) == 1
    links = place.repository.links()
    assert links["htc/rocky:9"] == links["htc/rocky:latest"]


def test_a_published_content_gets_another_name_without_a_build(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    unpacked: list[Path] = []
    place.watch = unpacked.append
    published = place.publish(publication, (entry("htc/rocky:latest"), answer("one")))
    assert not unpacked
    assert published.snapshot.records["htc/rocky:latest"].current("amd64") is not None
    assert place.repository.exists("htc/rocky:latest")


def test_only_the_wanted_formats_are_made(place: Place) -> None:
    publication = place.publication()
    published = place.publish(
        publication,
        (entry("a/sif:1", formats=["sif"]), answer("one")),
        (entry("a/sandbox:1", formats=["sandbox"]), answer("two")),
    )
    assert list(place.repository.links()) == ["a/sandbox:1"]
    assert len(list(place.origin.names("sif"))) == 1
    sif, sandbox = (published.snapshot.records[name].current("amd64") for name in ("a/sif:1", "a/sandbox:1"))
    assert sif is not None
    assert sandbox is not None
    assert (sif.sandbox, sandbox.sif) == (None, None)


def test_a_name_without_a_sandbox_loses_its_link(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    place.publish(publication, (entry("htc/rocky:9", formats=["sif"]), answer("two")))
    assert place.repository.links() == {}, "or it would go on to show the old image"


def test_an_unwanted_format_keeps_its_data_until_retention_removes_it(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    published = place.publish(publication, (entry("htc/rocky:9", formats=["sif"]), answer("one")))
    assert place.repository.links() == {}
    sandbox = paths.sandbox_path(digest("one linux/amd64"))
    assert place.repository.exists(sandbox)
    assert [version.sandbox for _, version in published.snapshot.records["htc/rocky:9"].versions()] == [None, sandbox]
    place.in_both()


def test_an_unwanted_platform_expires_and_keeps_its_link_until_then(place: Place) -> None:
    publication = place.publication()
    said = answer("one", [AMD64, ARM64])
    place.publish(publication, (entry("htc/rocky:9", [AMD64, ARM64]), said))
    published = place.publish(publication, (entry("htc/rocky:9"), said))
    version = published.snapshot.records["htc/rocky:9"].current("arm64")
    assert version is not None
    assert (version.state, version.until) == (EXPIRING, place.now + 14 * 86400)
    assert sorted(place.repository.links()) == [".arch/arm64/htc/rocky:9", "htc/rocky:9"]


def test_an_image_for_another_architecture_alone_has_its_plain_name_too(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("cms/cms:rhel9-aarch64", [ARM64]), answer("arm", [ARM64])))
    root = place.repository.root
    assert (root / "cms/cms:rhel9-aarch64").samefile(root / ".arch/arm64/cms/cms:rhel9-aarch64")
    both = (entry("cms/cms:rhel9-aarch64", [ARM64, AMD64]), answer("arm", [ARM64, AMD64]))
    place.publish(publication, both)
    assert (root / "cms/cms:rhel9-aarch64" / "content").read_text() == digest("arm linux/amd64")


def test_a_name_that_leaves_is_marked_and_keeps_its_data(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry("htc/rocky:9"), answer("one"))).snapshot
    place.now += 100
    after = publication.publish(snapshot, [], ["htc/rocky:9"]).snapshot
    version = after.records["htc/rocky:9"].current("amd64")
    assert version is not None
    assert (version.state, version.since, version.until) == (EXPIRING, place.now, place.now + 14 * 86400)
    assert place.repository.exists("htc/rocky:9")
    place.in_both()


def test_an_origin_that_a_killed_run_left_behind_is_brought_up_to_date(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    for name in list(place.origin.names(paths.ORIGIN_MANIFEST)):
        place.origin.remove(name)
    again = place.publication()
    snapshot, done = again.open()
    assert any("manifest from serial 0 to 1" in line for line in done)
    assert snapshot.serial == 1
    place.in_both()
    assert place.publication().open()[1] == []


def test_an_origin_that_refuses_the_manifest_does_not_unpublish(place: Place) -> None:
    class Refusing(DirectoryOrigin):
        def replace(self, name: str, content: bytes) -> None:
            raise OriginError(f"{name} ({len(content)} bytes) is refused")

    published = place.publish(place.publication(Refusing(place.where / "osdf")), (entry("htc/rocky:9"), answer("one")))
    assert isinstance(published.behind, OriginError)
    assert published.snapshot.serial == 1
    assert place.repository.exists("htc/rocky:9")
    place.publication().open()
    place.in_both()


def test_after_a_restore_a_run_continues_from_the_highest_serial(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    old = place.repository.read(INDEX)
    assert old is not None
    for text in ("two", "three"):
        place.publish(publication, (entry("htc/rocky:9"), answer(text)))
    (place.repository.root / INDEX).write_bytes(old)  # the repository as a backup had it; the origin is ahead
    again = place.publication()
    snapshot, _ = again.open()
    assert snapshot.serial == 3
    assert "serial 3" in str(again.due(snapshot))
    renewed = again.publish(snapshot, [])
    assert renewed.snapshot.serial == 4
    assert again.due(renewed.snapshot) is None
    place.in_both()


def test_after_a_restore_the_origin_gets_all_that_the_next_manifest_names(place: Place) -> None:
    """Also where that one changes little: the origin has other shards than the repository, and swept what it had before."""
    publication = place.publication()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    old = place.repository.read(INDEX)
    assert old is not None
    place.publish(publication, (entry("htc/rocky:9"), answer("two")))
    shards = {f"{paths.ORIGIN_MANIFEST}/{manifest.shard_name(one)}" for one in place.index().shards if one is not None}
    (place.repository.root / INDEX).write_bytes(old)
    for name in list(place.origin.names(f"{paths.ORIGIN_MANIFEST}/shards")):
        if name not in shards:
            place.origin.remove(name)
    place.publish(place.publication(), (entry("htc/debian:12"), answer("other")))
    place.in_both()


def test_the_origin_is_sent_what_changed_and_everything_if_it_was_behind(place: Place) -> None:
    class Watched(DirectoryOrigin):
        def size(self, name: str) -> int | None:
            asked.append(name)
            return super().size(name)

        def replace(self, name: str, content: bytes) -> None:
            if refusing:
                raise OriginError(f"{name} is refused")
            super().replace(name, content)

    asked: list[str] = []
    refusing = False
    publication = place.publication(Watched(place.origin.root))
    place.publish(publication, *((entry(f"htc/image-{number}:1"), answer(f"image {number}")) for number in range(60)))
    asked.clear()
    place.publish(publication, (entry("htc/rocky:9"), answer("one")))
    assert len(asked) < 10
    refusing = True
    behind = place.publish(publication, (entry("htc/rocky:9"), answer("two"))).behind
    assert isinstance(behind, OriginError)
    refusing = False
    for mended in (publication.open, lambda: publication.change(publication.open()[0], {})):
        asked.clear()
        mended()
        assert sum("/shards/" in name for name in asked) == sum(one is not None for one in place.index().shards)
        place.in_both()


def test_an_origin_that_refused_a_revision_is_sent_all_of_the_next(place: Place) -> None:
    class Refusing(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            if refusing:
                raise OriginError(f"{name} is refused")
            return super().put_bytes(name, content)

    refusing = False
    publication = place.publication(Refusing(place.origin.root))
    first = place.publish(publication, *((entry(f"htc/image-{number}:1"), answer(f"image {number}")) for number in range(9)))
    refusing = True
    staged = place.stage(entry("htc/rocky:9"), answer("one"), first.snapshot)
    second = publication.publish(first.snapshot, [staged])
    assert isinstance(second.behind, OriginError)
    refusing = False
    publication.publish(second.snapshot, [], ["htc/image-1:1"])
    place.in_both()


def test_a_run_publishes_nothing_if_another_one_has_published_meanwhile(place: Place) -> None:
    place.publish(place.publication(), (entry("bad/image:1"), answer("bad")))
    slow, fast = place.publication(), place.publication()
    snapshot, _ = slow.open()
    there, _ = fast.open()
    block.apply(fast, there, block.plan_block(there, "bad/image:1", place.now, "stolen data in it"))
    blocked = place.in_both()
    staged = place.stage(entry("htc/rocky:9"), answer("one"), snapshot)
    for late in (partial(slow.publish, snapshot, [staged]), partial(slow.change, snapshot, {})):
        with pytest.raises(AnotherRunError, match="another run has published") as raised:
            late()
        assert "run again" in str(raised.value.hint)
        assert place.in_both() == blocked
    assert place.repository.links() == {}
    assert not place.repository.exists(paths.sandbox_path(digest("one linux/amd64")))
    after = slow.publish(slow.open()[0], [staged]).snapshot
    assert [version.state for _, version in after.records["bad/image:1"].versions()] == [BLOCKED]
    assert after.serial == 3


def test_a_run_leaves_the_manifest_of_another_one_that_publishes_meanwhile_in_the_origin(place: Place) -> None:
    """Or what was taken down would be back for those who ask the origin."""

    class Slow(DirectoryOrigin):
        def put_bytes(self, name: str, content: bytes) -> bool:
            if name.startswith("manifest/shards") and not overtaken:
                overtaken.append(name)
                there, _ = fast.open()
                block.apply(fast, there, block.plan_block(there, "bad/image:1", place.now, "stolen data in it"))
            return super().put_bytes(name, content)

    overtaken: list[str] = []
    place.publish(place.publication(), (entry("bad/image:1"), answer("bad")))
    slow, fast = place.publication(Slow(place.origin.root)), place.publication()
    behind = place.publish(slow, (entry("htc/rocky:9"), answer("one"))).behind
    assert "another run has published" in str(behind)
    assert place.index().serial == 3
    place.in_both()


@pytest.mark.parametrize("others", [0, 9])
def test_a_mount_that_still_shows_the_manifest_from_before_is_not_another_run(place: Place, others: int) -> None:
    """As in CVMFS when somebody reads in the published mount at the end of a publish."""

    class Held(DirectoryRepository):
        held: bytes | None = None

        def read(self, path: str) -> bytes | None:
            return self.held if self.held is not None and path.endswith("index.json") else super().read(path)

    place.repository = repository = Held(place.repository.root, NAME)
    publication = place.publication()
    names = (f"htc/image-{number}:1" for number in range(others + 1))
    first = place.publish(publication, *((entry(name), answer(name)) for name in names))
    staged = place.stage(entry("htc/rocky:9"), answer("one"), first.snapshot)
    repository.held = repository.read(INDEX)
    behind = publication.publish(first.snapshot, [staged]).behind
    assert "still shows the one before" in str(behind)
    assert "end the programs that read" in str(behind)
    with pytest.raises(RepositoryError, match="still shows the one before"):
        publication.change(first.snapshot, {})
    repository.held = None
    publication.open()
    place.in_both()


def test_a_transaction_that_failed_does_not_make_the_mount_look_old(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SpaceError("no space left")

    publication = place.publication()
    first = place.publish(publication, (entry("htc/rocky:9"), answer("one"))).snapshot
    staged = place.stage(entry("htc/other:1"), answer("two"), first)
    monkeypatch.setattr(place.repository, "_commit", full)
    with pytest.raises(SpaceError):
        publication.publish(first, [staged])
    monkeypatch.undo()
    publication.resend_manifest(first)
    place.in_both()


def test_an_index_past_half_its_lifetime_is_due(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry("htc/rocky:9"), answer("one"))).snapshot
    assert publication.due(snapshot) is None
    place.now += 8 * 86400
    assert publication.due(snapshot) is not None
    renewed = publication.publish(snapshot, []).snapshot
    assert (renewed.serial, renewed.generated) == (1 + 8 * 86400, place.now)
    assert renewed.records == snapshot.records


def test_a_manifest_signed_by_an_unknown_key_is_refused(place: Place, tmp_path: Path) -> None:
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    new_key(tmp_path / "thief")
    forged = make_revision(Snapshot(NAME), Signer(tmp_path / "thief"), serial=9, now=NOW)
    place.origin.replace(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}", forged.index)
    with pytest.raises(PublishedManifestError, match="not signed"):
        place.publication().open()


def test_a_key_that_is_rotated_out_may_have_signed_what_is_published(place: Place, tmp_path: Path) -> None:
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    new_key(tmp_path / "new")
    signer = Signer(tmp_path / "new")
    with pytest.raises(PublishedManifestError):
        Publication(place.repository, place.origin, signer, clock=lambda: NOW, copy=place.copy).open()
    rotated = Publication(
        place.repository,
        place.origin,
        signer,
        clock=lambda: NOW,
        copy=place.copy,
        trusted=(place.signer.public,),
        unpack=place.unpack,
    )
    snapshot, _ = rotated.open()
    assert "another key" in str(rotated.due(snapshot)), "execution points that trust the new one alone wait for it"
    published = rotated.publish(snapshot, [])
    assert published.snapshot.serial == 2
    assert rotated.due(published.snapshot) is None
    assert Publication(place.repository, place.origin, signer, clock=lambda: NOW, copy=place.copy).open()[0].serial == 2


def test_a_shard_of_an_old_revision_that_is_wanted_again_stays(place: Place) -> None:
    publication = place.publication()
    first = place.publish(publication, (entry("htc/rocky:9"), answer("one"))).snapshot
    place.now += 1
    second = place.publish(publication, (entry("htc/rocky:9"), answer("two"))).snapshot
    place.now += 30 * 86400
    published = publication.change(second, first.records)
    assert published.snapshot.records == first.records
    assert place.repository.read(paths.revision_path(1)) is None
    place.in_both()


def known(reason: str) -> Outcomes:
    return Outcomes({"htc/bad:1": LastOutcome(FAILING, reason, NOW, 1, NOW)}, {}, NOW, NOW)


def outcomes_path(place: Place) -> str:
    sha256 = place.index().outcomes
    assert sha256 is not None
    return manifest.shard_name(sha256)


def test_outcomes_are_signed_with_the_manifest_and_read_back_from_both_places(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    publication.publish(replace(snapshot, outcomes=known("no shell")), [])
    content = place.repository.read(f"{paths.REPOSITORY_MANIFEST}/{outcomes_path(place)}")
    assert content == place.origin.read(f"{paths.ORIGIN_MANIFEST}/{outcomes_path(place)}")
    assert place.publication().open()[0].outcomes == known("no shell")


def test_outcomes_that_did_not_change_stay_and_earlier_ones_leave_with_their_revision(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    first = publication.publish(replace(snapshot, outcomes=known("no shell")), []).snapshot
    earlier = outcomes_path(place)
    same = publication.publish(first, []).snapshot
    assert outcomes_path(place) == earlier
    publication.publish(replace(same, outcomes=known("too large")), [])
    assert outcomes_path(place) != earlier
    assert place.repository.read(f"{paths.REPOSITORY_MANIFEST}/{earlier}") is not None
    place.now += 30 * 86400
    publication.publish(publication.open()[0], [])
    assert place.repository.read(f"{paths.REPOSITORY_MANIFEST}/{earlier}") is None
    assert place.publication().open()[0].outcomes == known("too large")


@pytest.mark.parametrize("content", [None, b"{}"])
def test_lost_or_forged_outcomes_are_not_believed_and_do_not_stop_a_run(place: Place, content: bytes | None) -> None:
    publication = place.publication()
    publication.publish(replace(publication.open()[0], outcomes=known("no shell")), [])
    in_repository = place.repository.root / paths.REPOSITORY_MANIFEST
    for where in (place.where / "state/published", in_repository, place.origin.root / paths.ORIGIN_MANIFEST):
        assert place.publication().open()[0].outcomes == known("no shell"), "one place has them yet"
        path = where / outcomes_path(place)
        path.chmod(0o644)
        path.unlink() if content is None else path.write_bytes(content)
    assert place.publication().open()[0].outcomes == Outcomes()
