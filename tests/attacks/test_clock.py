"""A wrong clock, of the publisher or of an execution point: jumps in both directions."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import CLOCK_ERROR, DEAD, EXPIRED, FRESH, HARD_LIMIT, LIFETIME, Index
from publisher.errors import ClockError
from publisher.maintain import block, gc
from publisher.net.server_dates import ServerDates
from publisher.plan.retention import RetentionLimits
from publisher.publish.publication import Publication
from tests.support.ep.execution_point import ExecutionPoint, record
from tests.support.images.printing_image import push
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NOW, Place
from tests.support.registries.proxy import misbehaving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from publisher.state.snapshot import Snapshot
    from tests.support.publisher.host import Host
    from tests.support.registries.registry import RegistryServer

DAY = 86400
NAME = "htc/rocky:9"
LIMITS = RetentionLimits(14 * DAY, 50, 10**12)
FAR = 400 * DAY
"""The jump of the attack: one run with this clock signed a manifest that was valid for 414 days."""


class Time:
    """A publisher host whose clock may be wrong, and registries that say what time it is."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ahead = 0  # of this host's clock, in seconds
        self.registries: dict[str, int] = {"one.example": 0}  # how far ahead each one's is

    def publication(self, *, asks: bool = True) -> Publication:
        dates = ServerDates(lambda: 0.0)
        for name, ahead in self.registries.items() if asks else ():
            dates.record(name, {"Date": formatdate(self.place.now + ahead, usegmt=True)})
        return Publication(
            self.place.repository,
            self.place.origin,
            self.place.signer,
            clock=lambda: self.place.now + self.ahead,
            copy=self.place.copy,
            dates=dates,
            unpack=self.place.unpack,
        )

    def publish(self, text: str = "one") -> Snapshot:
        return self.place.publish(self.publication(), (entry(NAME), answer(text))).snapshot

    def sign_if_due(self, *, asks: bool = True) -> tuple[Snapshot, str | None]:
        """Do what a run without changes does."""
        publication = self.publication(asks=asks)
        snapshot, _ = publication.open()
        why = publication.due(snapshot)
        return (snapshot if why is None else publication.publish(snapshot, []).snapshot), why


@pytest.fixture
def host_time(tmp_path: Path) -> Time:
    return Time(Place(tmp_path))


@pytest.mark.parametrize("ahead", [FAR, HARD_LIMIT, DAY, 601, -601, -DAY, -FAR])
def test_nothing_is_signed_if_the_registries_have_another_time(host_time: Time, ahead: int) -> None:
    host_time.publish()
    before = host_time.place.in_both()
    host_time.ahead = ahead
    said = r"1 of 1 registries disagree, such as one\.example, which says 2027-01-15 08:00"
    with pytest.raises(ClockError, match=said) as no:
        host_time.publish("two")
    assert "set the clock" in str(no.value.hint)
    with pytest.raises(ClockError):
        host_time.publication().check_clock()
    assert host_time.place.in_both() == before


@pytest.mark.parametrize("ahead", [-600, -60, 0, 60, 600])
def test_a_clock_that_is_slightly_wrong_does_no_harm(host_time: Time, ahead: int) -> None:
    host_time.publish()
    host_time.ahead = ahead
    assert host_time.publish("two").generated == NOW + ahead


@pytest.mark.parametrize(
    ("registries", "signs"),
    [
        ({"a": 0, "b": 0, "liar": -FAR}, True),
        ({"a": 0, "liar": FAR}, True),
        ({"a": FAR, "b": FAR, "c": 0}, False),
        ({"liar": FAR}, False),
        ({}, True),
    ],
)
def test_the_majority_of_the_registries_decides(host_time: Time, registries: Mapping[str, int], *, signs: bool) -> None:
    host_time.registries = dict(registries)
    if signs:
        assert host_time.publish().generated == NOW
    else:
        with pytest.raises(ClockError):
            host_time.publish()


@pytest.mark.parametrize("ahead", [-FAR, -601, HARD_LIMIT + 1, FAR])
def test_where_no_registry_was_asked_a_clock_that_jumps_is_not_believed(host_time: Time, ahead: int) -> None:
    """Such as by publisher block and gc, which ask none; backwards, or further ahead than any reader accepts a manifest."""
    host_time.publish()
    before = host_time.place.in_both()
    host_time.ahead = ahead
    publication = host_time.publication(asks=False)
    snapshot, _ = publication.open()
    with pytest.raises(ClockError, match="the newest manifest was signed") as no:
        block.apply(publication, snapshot, block.plan_block(snapshot, NAME, NOW + ahead, "stolen data"))
    assert "publisher sync NAME" in str(no.value.hint)
    assert host_time.place.in_both() == before
    host_time.ahead = HARD_LIMIT
    assert host_time.sign_if_due(asks=False)[1] is not None


def test_a_jump_that_only_half_of_the_registries_confirm_is_not_believed(host_time: Time) -> None:
    host_time.publish()
    host_time.registries = {"liar": FAR, "two.example": 0}
    host_time.ahead = FAR
    with pytest.raises(ClockError, match="the newest manifest was signed"):
        host_time.publish("two")


def test_a_publisher_that_was_off_for_long_signs_again_if_the_registries_confirm_its_clock(host_time: Time) -> None:
    host_time.publish()
    host_time.place.now += FAR
    with pytest.raises(ClockError):
        host_time.sign_if_due(asks=False)
    assert host_time.sign_if_due()[0].generated == NOW + FAR


def test_a_clock_that_jumps_back_between_two_publications_of_a_run_is_not_believed(host_time: Time) -> None:
    host_time.publish()
    publication = host_time.publication(asks=False)
    snapshot, _ = publication.open()
    host_time.ahead = DAY
    snapshot = publication.publish(snapshot, []).snapshot
    host_time.ahead = 0
    with pytest.raises(ClockError, match="the newest manifest was signed later"):
        publication.publish(snapshot, [])


def test_a_clock_that_is_ahead_ends_no_grace(host_time: Time) -> None:
    host_time.publish()
    snapshot = host_time.publish("two")
    host_time.ahead = FAR
    for asks in (True, False):
        publication = host_time.publication(asks=asks)
        publication.open()
        collected = gc.collect(publication, snapshot, NOW + FAR, LIMITS)
        assert isinstance(collected.error, ClockError)
    assert len(list(host_time.place.origin.names("sif"))) == 2
    assert len(host_time.publication().open()[0].records[NAME].platforms["amd64"]) == 2


def test_a_clock_that_is_ahead_removes_no_sif_that_was_just_stored(host_time: Time) -> None:
    """Such as one of a killed run, which no manifest names yet: the repository has nothing to change, so nothing is signed."""
    snapshot = host_time.publish()
    publication = host_time.publication()
    for build in host_time.place.stage(entry(NAME), answer("two"), snapshot).builds.values():
        publication.store_sif(build)
    host_time.ahead = FAR
    publication.open()
    assert isinstance(gc.collect(publication, snapshot, NOW + FAR, LIMITS).error, ClockError)
    assert len(list(host_time.place.origin.names("sif"))) == 2


def test_a_manifest_from_the_future_is_signed_again(host_time: Time) -> None:
    host_time.ahead, host_time.registries = FAR, {}
    future = host_time.publish()
    host_time.ahead = 0
    with pytest.raises(ClockError):
        host_time.sign_if_due()
    host_time.registries = {"one.example": 0}
    signed, why = host_time.sign_if_due()
    assert why == "it was signed at a time that has not come yet"
    assert signed.serial > future.serial
    assert (signed.generated, signed.expires) == (NOW, NOW + LIFETIME)
    assert host_time.sign_if_due()[1] is None


# --- execution points


def index(generated: int, expires: int) -> Index:
    return Index("images.example.org", serial=1, generated=generated, expires=expires, sif_prefix="sif", shards=[None])


@pytest.mark.parametrize(
    ("ahead", "age"),
    [(0, FRESH), (CLOCK_ERROR, FRESH), (CLOCK_ERROR + 1, EXPIRED), (HARD_LIMIT, EXPIRED), (HARD_LIMIT + 1, DEAD), (FAR, DEAD)],
)
def test_an_execution_point_does_not_call_a_manifest_from_the_future_fresh(ahead: int, age: str) -> None:
    assert index(NOW + ahead, NOW + ahead + LIFETIME).age(NOW) == age


def test_an_execution_point_does_not_accept_a_longer_life_than_its_own_bound() -> None:
    greedy = index(NOW, NOW + HARD_LIMIT)
    assert greedy.age(NOW + LIFETIME + CLOCK_ERROR) == FRESH
    assert greedy.age(NOW + LIFETIME + CLOCK_ERROR + 1) == EXPIRED
    assert greedy.age(NOW + HARD_LIMIT + CLOCK_ERROR + 1) == DEAD


def test_no_reader_accepts_an_index_that_lives_longer_than_the_hard_limit() -> None:
    Index.parse(index(NOW, NOW + HARD_LIMIT).payload())
    with pytest.raises(ManifestError, match="that must be from 0 to"):
        Index.parse(index(NOW, NOW + HARD_LIMIT + 1).payload())


def test_an_execution_point_says_that_a_clock_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "ep").mkdir()
    ep = ExecutionPoint(tmp_path / "ep")
    ep.publish(record(NAME), now=NOW + DAY)
    assert ep.resolve(NAME, now=NOW).manifest.age == EXPIRED
    (warning,) = ep.notes.warnings
    assert "has not come yet: the clock of this host or of the publisher is wrong" in warning


# --- with the real program


@pytest.mark.system
@pytest.mark.parametrize("ahead", [FAR, -FAR])
def test_the_program_compares_its_clock_with_the_registries(host: Host, registry: RegistryServer, ahead: int) -> None:
    """The registry's clock is as far back as this host's is ahead, which nobody here may set."""
    push(registry, "clock/one:1", "one")
    with misbehaving(registry) as proxy:
        proxy.ahead = -ahead
        host.registry = proxy  # type: ignore[assignment]  # its address is all that is used
        host.images("clock/one:1")
        refused = host.run("sync")
        assert refused.returncode == 4
        assert f"1 of 1 registries disagree, such as {proxy.address}" in refused.stderr
        assert host.index() is None
        assert list((host.state / "builds").iterdir()) == [], "nothing is built for hours that could not be signed"
        proxy.ahead = 0
        assert host.sync().results == {"clock/one:1": "published"}
