from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.build.builder import UncheckedSif
from publisher.errors import RepositoryError
from publisher.plan.make import make_plan
from publisher.publish.early_sandbox import early_sandbox_path
from publisher.publish.staged import StagedEntry
from publisher.state import paths
from publisher.state.snapshot import Snapshot
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.publisher.built_values import AMD64, ARM64, answer, built, carried_out, entry
from tests.support.publisher.prepublished import NAME, Place
from tests.support.publisher.recorded_sync import World

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.plan.model import PlanItem
    from publisher.publish.publication import Publication, PublishResult

EMPTY = Snapshot(NAME)


class Early:
    """An open publication, and an image whose SIF is made but not checked; ``unpacked`` has what was unpacked, in order."""

    def __init__(self, where: Path) -> None:
        self.place = Place(where)
        self.unpacked: list[Path] = []
        self.place.watch = self.unpacked.append
        self.publication: Publication = self.place.publication()
        self.snapshot, _ = self.publication.open()
        self.item = item_of(entry("a/a:1"))
        self.staged = self.stage(self.item)

    def stage(self, item: PlanItem) -> StagedEntry:
        builds = {target.digest: built(target.content, self.place.where) for target in item.targets}
        for build in builds.values():
            self.publication.store_sif(build)
        return StagedEntry(item, builds)

    @property
    def sif(self) -> Path:
        return next(iter(self.staged.builds.values())).sif

    def begin(self) -> None:
        self.publication.unpack_early(self.snapshot, self.item, UncheckedSif.at(self.sif, 7))

    def publish(self, *entries: StagedEntry) -> PublishResult:
        return self.publication.publish(self.snapshot, entries or [self.staged])

    def content(self, name: str) -> str:
        return (self.place.repository.root / name / "content").read_text()


@pytest.fixture
def early(tmp_path: Path) -> Early:
    return Early(tmp_path)


def item_of(wanted: Entry, snapshot: Snapshot = EMPTY, config: str = "one", platforms: Sequence[Platform] = (AMD64,)) -> PlanItem:
    (item,) = make_plan([wanted], {wanted.name: answer(config, platforms)}, snapshot).items
    return item


def test_a_sandbox_that_was_unpacked_early_is_published_with_its_image(early: Early) -> None:
    early.begin()
    assert not early.place.repository.exists("a/a:1")
    result = early.publish()
    assert result.snapshot.serial > 0
    assert not result.failed
    assert early.content("a/a:1") == early.sif.read_text()
    assert len(early.unpacked) == 1, "it is unpacked once"
    version = result.snapshot.records["a/a:1"].current("amd64")
    assert version is not None
    assert early.place.repository.exists(version.sandbox or "")
    assert early.place.repository.exists(paths.file_index_path(early.item.targets[0].content))


def test_a_sif_that_was_made_again_is_unpacked_again(early: Early) -> None:
    early.begin()
    content = early.sif.read_text()
    early.sif.unlink()
    early.sif.write_text(content)
    os.utime(early.sif, ns=(1, 1))
    assert not early.publish().failed
    assert len(early.unpacked) == 2
    assert early.content("a/a:1") == content


def test_a_sif_that_is_made_again_while_it_is_unpacked_takes_the_place_of_the_first(early: Early) -> None:
    early.begin()
    os.utime(early.sif, ns=(1, 1))
    early.begin()
    assert not early.publish().failed
    assert len(early.unpacked) == 2, "the second one was published"


def test_an_image_that_is_published_with_others_is_unpacked_with_them(early: Early) -> None:
    early.begin()
    other = early.stage(item_of(entry("a/b:1"), config="two"))
    assert not early.publish(early.staged, other).failed
    assert len(early.unpacked) == 3
    assert early.content("a/b:1") != early.content("a/a:1")


def test_an_image_that_fails_after_all_leaves_nothing(early: Early) -> None:
    early.begin()
    early.publication.discard_early()
    root = early.place.repository.root
    assert not [path for path in root.rglob("content") if path.is_file()]
    assert early.place.repository.recover() == [], "nothing was left open"
    other = early.stage(item_of(entry("a/b:1"), config="two"))
    assert not early.publish(other).failed


def test_a_manifest_alone_discards_what_was_begun(early: Early) -> None:
    early.begin()
    early.publication.publish(early.snapshot, [])
    assert not early.place.repository.exists(paths.sandbox_path(early.item.targets[0].content))


def test_a_sandbox_that_cannot_be_unpacked_early_is_unpacked_later(early: Early) -> None:
    early.place.broken.add(early.sif.read_text())
    early.begin()
    early.place.broken.clear()
    assert not early.publish().failed
    assert len(early.unpacked) == 2


def test_a_repository_that_is_in_use_then_is_asked_again_later(early: Early) -> None:
    repository = DirectoryRepository(early.place.repository.root, NAME)
    with repository.transaction() as theirs:
        theirs.write("theirs", b"")
        early.begin()
    assert not early.publish().failed
    assert len(early.unpacked) == 1


class Shared(DirectoryRepository):
    shared_through = "http://gateway.example.org:4929/api/v1"


class Cloning(DirectoryRepository):
    can_clone = True


def test_only_a_single_sandbox_from_a_new_sif_is_unpacked_early(tmp_path: Path) -> None:
    repository = DirectoryRepository(tmp_path / "cvmfs", NAME)
    wanted = entry("a/a:1")
    item = item_of(wanted)
    assert early_sandbox_path(repository, EMPTY, item) == paths.sandbox_path(item.targets[0].content)
    assert early_sandbox_path(Shared(tmp_path / "cvmfs", NAME), EMPTY, item) is None
    assert early_sandbox_path(repository, EMPTY, item_of(replace(wanted, formats=frozenset({"sif"})))) is None
    both = entry("a/a:1", [AMD64, ARM64])
    assert early_sandbox_path(repository, EMPTY, item_of(both, platforms=[AMD64, ARM64])) is None
    before = carried_out(make_plan([wanted], {"a/a:1": answer("zero")}, EMPTY), EMPTY, 1)
    changed = item_of(wanted, before)
    assert early_sandbox_path(repository, before, changed) is not None
    assert early_sandbox_path(Cloning(tmp_path / "cvmfs", NAME), before, changed) is None, "it may be cloned"
    with repository.transaction() as transaction:
        transaction.tree(paths.sandbox_path(item.targets[0].content)).mkdir()
    assert early_sandbox_path(repository, EMPTY, item) is None, "it is there"


# in a run


def test_the_last_image_of_a_run_is_unpacked_while_its_sif_is_checked() -> None:
    world = World()
    world.while_checked = lambda _: world.sleep(10)
    world.run(entry("a/a:1"))
    assert world.publication.early == ["a/a:1"]
    assert world.publication.transactions == [["a/a:1"]]


def test_an_image_is_not_unpacked_early_while_others_are_under_way_or_wait_for_the_transaction() -> None:
    world = World()
    world.while_checked = lambda _: world.sleep(10)
    world.run(entry("a/a:1"), entry("a/b:1"))
    assert world.publication.early == []
    assert world.publication.transactions == [["a/a:1", "a/b:1"]]


def test_an_image_that_fails_its_check_leaves_no_transaction_open() -> None:
    world = World()
    world.while_checked = lambda _: world.sleep(10)
    world.building["a/a:1"] = RepositoryError("it does not start")
    world.run(entry("a/a:1"))
    assert world.publication.early == ["a/a:1"]
    assert world.publication.open_early is None


def test_an_image_whose_build_cannot_show_its_sif_is_unpacked_later() -> None:
    world = World()
    world.before = lambda name: world.builder.hidden.update([name])
    world.run(entry("a/a:1"))
    assert world.publication.early == []
