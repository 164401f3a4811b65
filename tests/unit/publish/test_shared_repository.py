"""A repository that publishers on other hosts may publish to meanwhile: what they do to each other through the origin."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from publisher.errors import ANOTHER_RUN, AnotherRunError, OriginError
from publisher.maintain import block, gc
from publisher.plan.retention import RetentionLimits
from publisher.publish.report import RunReport
from publisher.state import paths
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMITS = RetentionLimits(grace=100, count=100, size=10**12)


class Shared(DirectoryRepository):
    """A repository in which another host does something just before this one has it for itself."""

    shared_through = "http://gateway.example.org:4929/api/v1"
    before: Callable[[], object] | None = None

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        other, self.before = self.before, None
        if other is not None:
            other()
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.repository = Shared(place.repository.root, NAME)
    return place


def shared(place: Place) -> Shared:
    assert isinstance(place.repository, Shared)
    return place.repository


def publish_elsewhere(place: Place, name: str, text: str) -> Callable[[], object]:
    return lambda: place.publish(place.publication(), (entry(name), answer(text)))


def test_the_index_of_a_later_revision_is_not_replaced_in_the_origin(place: Place) -> None:
    publication = place.publication()
    place.publish(publication, (entry("htc/a:1"), answer("a")))
    shared(place).before = publish_elsewhere(place, "htc/b:1", "b")
    late = place.publish(publication, (entry("htc/c:1"), answer("c")))
    assert isinstance(late.behind, AnotherRunError)
    place.in_both()
    assert set(publication.open()[0].records) == {"htc/a:1", "htc/b:1", "htc/c:1"}


@pytest.mark.parametrize("overtaken", [True, False])
def test_garbage_stays_if_another_host_has_published_meanwhile(place: Place, overtaken: bool) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry("htc/a:1"), answer("a"))).snapshot
    garbage = paths.sif_path("0" * 64)
    place.origin.put_bytes(garbage, b"of a killed run")
    place.now += 1000
    shared(place).before = publish_elsewhere(place, "htc/b:1", "b") if overtaken else None
    result = gc.collect(publication, snapshot, place.now, LIMITS)
    assert result.error is None
    assert (place.origin.size(garbage) is not None) == overtaken


def test_a_blocked_sif_stays_for_the_next_run_if_another_host_has_published_meanwhile(place: Place) -> None:
    publication = place.publication()
    snapshot = place.publish(publication, (entry("bad/image:1"), answer("bad"))).snapshot
    (sif,) = place.origin.names("sif")
    plan = block.plan_block(snapshot, "bad/image:1", place.now, "stolen data in it")
    calls: list[object] = []

    def after_the_index() -> None:  # the first time is for the index of the origin, the second for the SIF
        calls.append(None)
        shared(place).before = publish_elsewhere(place, "htc/b:1", "b")

    shared(place).before = after_the_index
    block.apply(publication, snapshot, plan)
    assert calls
    assert place.origin.size(sif) is not None
    after, _ = publication.open()
    gc.collect(publication, after, place.now, LIMITS)
    assert place.origin.size(sif) is None


def test_an_image_whose_sif_another_host_has_removed_is_not_published(place: Place) -> None:
    publication = place.publication()
    snapshot, _ = publication.open()
    staged = [place.stage(entry(name), answer(text), snapshot) for name, text in (("htc/a:1", "a"), ("htc/b:1", "b"))]
    for build in (build for one in staged for build in one.builds.values()):
        publication.store_sif(build)
    sif = paths.sif_path(next(iter(staged[0].builds.values())).sha256)
    place.origin.remove(sif)
    result = publication.publish(snapshot, staged)
    assert set(result.snapshot.records) == {"htc/b:1"}
    assert isinstance(result.failed["htc/a:1"], OriginError)
    assert f"{sif} is not in the origin any more" in str(result.failed["htc/a:1"])


def test_a_run_that_another_host_stopped_ends_as_one_that_did_not_begin() -> None:
    assert RunReport(stopped=AnotherRunError("another run has published")).exit_code == ANOTHER_RUN
