from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from publisher.cli.render.run import report_json, report_lines
from publisher.errors import LayerError, NotFoundError, OriginError, RepositoryError, SpaceError
from publisher.plan.make import make_plan
from publisher.publish.batch import BatchLimits
from tests.support.publisher.built_values import AMD64, ARM64, answer, built, carried_out, digest, entry
from tests.support.publisher.recorded_sync import EMPTY, Building, World

if TYPE_CHECKING:
    from publisher.publish.report import RunReport
    from publisher.state.snapshot import Snapshot


@pytest.fixture
def world() -> World:
    return World()


def published(*names: str) -> Snapshot:
    entries = [entry(name) for name in names]
    return carried_out(make_plan(entries, {name: answer(name) for name in names}, EMPTY), EMPTY, 1)


def results(report: RunReport) -> dict[str, str]:
    return {name: outcome.result.value for name, outcome in report.outcomes.items()}


def test_finished_entries_are_published_in_one_transaction_and_their_builds_discarded(world: World) -> None:
    report = world.run(entry("a/a:1"), entry("a/b:1"))
    assert world.publication.transactions == [["a/a:1", "a/b:1"]]
    assert world.builder.kept == []
    assert (report.exit_code, report.serial) == (0, 1)
    assert results(report) == {"a/a:1": "published", "a/b:1": "published"}


def test_nothing_to_do_publishes_nothing_and_says_so(world: World) -> None:
    wanted = entry("a/a:1")
    snapshot = carried_out(make_plan([wanted], {"a/a:1": answer("a/a:1")}, EMPTY), EMPTY, 1)
    report = world.run(wanted, snapshot=snapshot)
    assert world.publication.transactions == []
    assert world.intake.asked == []
    assert report_lines(report)[-1].startswith("nothing to do: 1 unchanged")
    assert report.exit_code == 0


def test_somebody_elses_transaction_is_noticed_before_anything_is_fetched_or_built(world: World) -> None:
    world.publication.busy = RepositoryError("somebody else's transaction is open", hint="run again")
    report = world.run(entry("a/a:1"))
    assert world.intake.asked == []
    assert results(report) == {"a/a:1": "not tried"}
    assert "somebody else's transaction is open" in report_lines(report)[-2]
    assert report.exit_code == 4


@pytest.mark.parametrize("where", ["answers", "fetching", "building"])
def test_one_failing_image_does_not_stop_the_others(world: World, where: str) -> None:
    error = NotFoundError("no such tag") if where == "answers" else LayerError("not a tar archive", hint="push it again")
    getattr(world, where)["a/bad:1"] = error
    report = world.run(entry("a/a:1"), entry("a/bad:1"), entry("a/c:1"))
    assert results(report) == {"a/a:1": "published", "a/bad:1": "failed", "a/c:1": "published"}
    assert report.exit_code == 1
    assert any(line.startswith("failed: a/bad:1: ") for line in report_lines(report))
    if where != "answers":
        assert "push it again" in "\n".join(report_lines(report))


@pytest.mark.parametrize("where", ["fetching", "building"])
def test_a_disk_that_fails_under_one_image_fails_that_image_with_advice(world: World, where: str) -> None:
    getattr(world, where)["a/bad:1"] = OSError(errno.EIO, "Input/output error", "/var/lib/x")
    report = world.run(entry("a/a:1"), entry("a/bad:1"), entry("a/c:1"))
    assert results(report) == {"a/a:1": "published", "a/bad:1": "failed", "a/c:1": "published"}
    (line,) = (line for line in report_lines(report) if line.startswith("failed: a/bad:1: "))
    assert "this host failed: /var/lib/x: Input/output error (look at the disks and file systems" in line


def test_an_error_that_may_be_a_bug_is_raised(world: World) -> None:
    world.building["a/bad:1"] = FileNotFoundError(errno.ENOENT, "no such file")  # type: ignore[assignment]  # no expected failure
    with pytest.raises(FileNotFoundError):
        world.run(entry("a/bad:1"))


def test_an_image_that_fails_in_the_transaction_is_reported(world: World) -> None:
    world.publication.left_out["a/bad:1"] = RepositoryError("cannot be unpacked")
    report = world.run(entry("a/a:1"), entry("a/bad:1"))
    assert results(report) == {"a/a:1": "published", "a/bad:1": "failed"}


def test_the_next_image_is_fetched_while_one_is_built_and_no_further(world: World) -> None:
    ahead: list[int] = []
    world.before = lambda _: ahead.append(len(world.intake.asked))
    world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert ahead == [2, 3, 4, 4]


@pytest.mark.parametrize("here", [True, False])
def test_layers_are_fetched_only_for_a_builder_of_this_host(world: World, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Building, "wants_layers", here)
    world.run(entry("a/a:1"), entry("a/b:1"))
    assert world.intake.with_layers is here


def test_a_transaction_is_bounded_by_bytes(world: World) -> None:
    world.limits = BatchLimits(size=2 * built(digest("x linux/amd64")).unpacked_size)
    world.run(*(entry(f"a/a:{number}") for number in range(5)))
    assert [len(names) for names in world.publication.transactions] == [2, 2, 1]


def test_every_clone_has_a_transaction_of_its_own_that_others_may_share(world: World) -> None:
    """A repository clones one tree in a transaction."""
    world.publication.cloned = {"a/a:1", "a/a:2", "a/a:4"}
    world.run(*(entry(f"a/a:{number}") for number in range(6)))
    assert world.publication.transactions == [["a/a:0", "a/a:1"], ["a/a:2", "a/a:3"], ["a/a:4", "a/a:5"]]


def test_a_small_image_is_unpacked_rather_than_cloned_in_a_transaction_of_its_own(world: World) -> None:
    world.publication.cloned, world.publication.kept = {"a/a:0", "a/a:1", "a/a:2"}, 300
    world.run(*(entry(f"a/a:{number}") for number in range(3)))
    assert world.publication.transactions == [["a/a:0", "a/a:1", "a/a:2"]]
    assert world.publication.clones == ["a/a:0"]


def test_a_build_that_two_names_share_stays_until_both_are_published(world: World) -> None:
    """However many transactions come in between: before a clone, before a second platform's build, and in halves."""
    same, both = answer("same", [AMD64, ARM64]), entry("a/b:1", [AMD64, ARM64])
    world.answers = {"a/a:1": same, "a/b:1": same}
    world.publication.cloned = {"a/a:1", "a/b:1"}
    world.run(entry("a/a:1"), entry("a/b:1"))
    assert world.publication.transactions == [["a/a:1"], ["a/b:1"]]
    assert world.builder.kept == ["a/a:1"], "the next run sweeps it"

    world.publication.cloned = set()
    world.limits = BatchLimits(seconds=100)
    world.before = lambda _: setattr(world, "now", world.now + 120)
    world.run(entry("a/a:1"), both)
    assert world.publication.transactions[2:] == [["a/a:1"], ["a/b:1"]]

    world.limits = BatchLimits()
    world.publication.room = 2 * built(digest("x linux/amd64")).unpacked_size
    report = world.run(entry("a/a:1"), both)
    assert results(report) == {"a/a:1": "published", "a/b:1": "failed"}
    assert digest("same linux/amd64") not in world.builder.gone


def test_a_finished_image_waits_no_longer_than_the_limit(world: World) -> None:
    world.limits = BatchLimits(seconds=100)

    def later(_: str) -> None:
        world.now += 60

    world.before = later
    world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert [len(names) for names in world.publication.transactions] == [3, 1]


def test_a_finished_image_does_not_wait_for_layers_longer_than_the_limit(world: World) -> None:
    world.limits = BatchLimits(seconds=100)
    world.arrivals = {"a/a:1": 90, "a/a:2": 5000}
    world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert world.publication.transactions == [["a/a:0", "a/a:1"], ["a/a:2", "a/a:3"]]
    assert world.publication.times == [100, 5000]


def test_a_finished_image_at_its_time_limit_does_not_wait_for_a_build(world: World) -> None:
    world.limits = BatchLimits(seconds=100)
    world.arrivals = {"a/a:1": 100}
    world.answers["a/a:2"] = answer("two", [AMD64, ARM64])

    def slow(name: str) -> None:
        world.now += {"a/a:1": 60, "a/a:2": 120}.get(name, 0)

    world.before = slow
    world.run(entry("a/a:0"), entry("a/a:1"), entry("a/a:2", [AMD64, ARM64]))
    assert world.publication.transactions == [["a/a:0"], ["a/a:1"], ["a/a:2"]]
    assert world.publication.times == [100, 280, 400], "of several platforms, before each build"


@pytest.mark.parametrize("where", ["fetching", "building"])
def test_a_full_disk_stops_the_run_and_publishes_what_is_finished(world: World, where: str) -> None:
    getattr(world, where)["a/b:1"] = SpaceError("no room left", hint="free space")
    report = world.run(entry("a/a:1"), entry("a/b:1"), entry("a/c:1"))
    assert world.publication.transactions == [["a/a:1"]]
    assert results(report) == {"a/a:1": "published", "a/b:1": "not tried", "a/c:1": "not tried"}
    assert isinstance(report.stopped, SpaceError)
    assert report.exit_code == 4


def test_a_batch_that_does_not_fit_is_published_as_far_as_it_fits(world: World) -> None:
    world.publication.room = 5.5 * built(digest("x linux/amd64")).unpacked_size
    report = world.run(*(entry(f"a/a:{number}") for number in range(8)))
    assert world.publication.transactions == [["a/a:0", "a/a:1", "a/a:2", "a/a:3"], ["a/a:4"]]
    assert list(results(report).values()) == ["published"] * 5 + ["failed"] * 3
    assert "no space for a sandbox (free space there and run again)" in report.outcomes["a/a:7"].reason
    assert (report.stopped, report.exit_code) == (None, 4)
    assert world.builder.kept == ["a/a:5", "a/a:6", "a/a:7"], "they are not built again"


def test_an_image_that_does_not_fit_stops_neither_later_images_nor_removals(world: World) -> None:
    one = built(digest("x linux/amd64")).unpacked_size
    big = entry("a/big:1", [AMD64, ARM64])
    world.answers[big.name] = answer("big", [AMD64, ARM64])
    world.publication.room = 1.5 * one
    world.limits = BatchLimits(size=one)
    report = world.run(big, entry("a/b:1"), snapshot=published("a/old:1"), allow_mass_removal=True)
    assert results(report) == {"a/big:1": "failed", "a/b:1": "published"}
    assert world.publication.left == ["a/old:1"]
    world.limits = BatchLimits()
    world.publication.why = "half of its life is over"
    report = world.run(big)
    assert results(report) == {"a/big:1": "failed"}
    assert "half of its life is over" in report.notes[0]


def test_several_images_in_a_row_that_do_not_fit_mean_a_full_disk(world: World) -> None:
    """Of a long list, all would be built before anybody is told."""
    world.publication.room = 0
    world.limits = BatchLimits(size=1)
    report = world.run(*(entry(f"a/a:{number}") for number in range(9)))
    assert list(results(report).values()) == ["failed"] * 5 + ["not tried"] * 4
    assert isinstance(report.stopped, SpaceError)
    assert len(world.intake.asked) == 6


def test_a_repository_that_refuses_stops_the_run_and_keeps_what_was_built(world: World) -> None:
    world.publication.refuse = RepositoryError("another transaction is open")
    report = world.run(entry("a/a:1"), entry("a/b:1"))
    assert results(report) == {"a/a:1": "not tried", "a/b:1": "not tried"}
    assert world.builder.kept == ["a/a:1", "a/b:1"]
    assert "another transaction is open" in "\n".join(report_lines(report))


def test_a_full_disk_is_what_is_reported_even_if_publishing_fails_too(world: World) -> None:
    world.building["a/b:1"] = SpaceError("no room left")
    world.publication.refuse = RepositoryError("cannot publish")
    assert isinstance(world.run(entry("a/a:1"), entry("a/b:1")).stopped, SpaceError)


def test_an_origin_without_the_new_manifest_is_reported(world: World) -> None:
    world.publication.behind = OriginError("no answer")
    report = world.run(entry("a/a:1"))
    assert results(report) == {"a/a:1": "published"}
    assert report.exit_code == 4
    assert any("behind" in note for note in report.notes)


def test_a_sif_that_the_origin_does_not_take_fails_its_image(world: World) -> None:
    world.publication.refuse_sif = OriginError("other bytes stand there")
    report = world.run(entry("a/a:1"), entry("a/b:1", formats=["sandbox"]))
    assert results(report) == {"a/a:1": "failed", "a/b:1": "published"}


def test_only_wanted_sifs_are_stored(world: World) -> None:
    world.run(entry("a/a:1", formats=["sandbox"]), entry("a/b:1", formats=["sif"]))
    assert len(world.publication.stored) == 1


def test_an_ageing_manifest_is_published_again(world: World) -> None:
    world.publication.why = "half of its life is over"
    report = world.run()
    assert world.publication.transactions == [[]]
    assert report.serial == 1
    assert "half of its life is over" in report.notes[0]


def test_removals_are_marked_in_the_last_transaction(world: World) -> None:
    snapshot = published("a/old:1", "a/gone:1")
    world.answers["a/gone:1"] = NotFoundError("no such tag")
    report = world.run(entry("a/new:1"), entry("a/gone:1"), snapshot=snapshot, allow_mass_removal=True)
    assert world.publication.transactions == [["a/new:1"]]
    assert sorted(world.publication.left) == ["a/gone:1", "a/old:1"]
    assert results(report) == {"a/new:1": "published", "a/gone:1": "gone"}
    assert report.exit_code == 0


def test_removals_alone_get_a_transaction(world: World) -> None:
    report = world.run(entry("a/a:1"), snapshot=published("a/a:1", "a/old:1"), allow_mass_removal=True)
    assert world.publication.left == ["a/old:1"]
    assert not report_lines(report)[-1].startswith("nothing to do")


def test_withheld_removals_are_reported_and_not_carried_out(world: World) -> None:
    report = world.run(entry("a/new:1"), snapshot=published("a/old:1"))
    assert world.publication.left == []
    assert results(report) == {"a/new:1": "published"}
    assert report.exit_code == 4
    assert any("--allow-mass-removal" in line for line in report_lines(report))
    assert any("would leave: a/old:1" in line for line in report_lines(report))


def test_an_image_larger_than_the_list_allows_is_not_published(world: World) -> None:
    report = world.run(entry("a/big:1", max_size=10), entry("a/a:1"))
    assert results(report) == {"a/big:1": "failed", "a/a:1": "published"}
    assert "max_size" in report.outcomes["a/big:1"].reason
    assert world.builder.kept == []


def test_the_report_keeps_the_lists_order(world: World) -> None:
    world.answers["a/b:1"] = NotFoundError("gone")
    report = world.run(entry("a/c:1"), entry("a/b:1"), entry("a/a:1"))
    assert list(report.outcomes) == ["a/c:1", "a/b:1", "a/a:1"]
    assert [image["name"] for image in report_json(report)["images"]] == ["a/c:1", "a/b:1", "a/a:1"]  # type: ignore[attr-defined]


def test_builds_of_unwanted_images_are_swept(world: World) -> None:
    world.answers["a/gone:1"] = NotFoundError("gone")
    world.run(entry("a/a:1"), entry("a/gone:1"))
    assert world.builder.swept == {digest("a/a:1 linux/amd64")}


def test_an_interrupt_is_not_a_failure_of_an_image(world: World) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    world.before = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.run(entry("a/a:1", [AMD64]), entry("a/b:1"))
    assert world.publication.transactions == []
