from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from publisher.cli.render.run import report_json, report_lines
from publisher.errors import BuildError, LayerError, NotFoundError, OriginError, RepositoryError, SpaceError
from publisher.plan.make import make_plan
from publisher.publish.batch import BatchLimits
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
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


def test_a_sync_of_some_names_keeps_the_unfinished_builds_of_all_others(world: World) -> None:
    world.run(entry("a/a:1"), whole=False)
    assert world.builder.swept is None


def test_builds_stay_of_images_whose_registry_does_not_answer_now(world: World) -> None:
    world.answers["a/bad:1"] = NotFoundError("no such tag")
    world.run(entry("a/a:1"), entry("a/bad:1"))
    assert (len(world.builder.swept or ()), world.builder.unknown) == (1, {"a/bad:1"})


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


def test_images_are_fetched_ahead_of_the_builds_as_far_as_the_disk_allows(world: World) -> None:
    ahead: list[int] = []
    world.before = lambda _: ahead.append(len(world.intake.asked))
    images = [entry(f"a/a:{number:02}") for number in range(20)]
    world.run(*images)
    assert ahead[0] == 10, "one is built, one waits for this, and eight more"
    assert ahead[-1] == 20

    ahead.clear()
    world.sizes, world.free = {image.name: 10**9 for image in images}, 8 * 10**9
    report = world.run(*images)
    assert ahead[:3] == [2, 3, 4], "layers, SIF and a reserve of two images have room"
    assert set(results(report).values()) == {"published"}

    ahead.clear()
    world.free = 0
    report = world.run(*images[:3])
    assert ahead == [1, 2, 3], "the builder says whether an image fits"
    assert set(results(report).values()) == {"published"}


def test_several_images_are_built_at_once(world: World) -> None:
    world.parallel = 3
    world.before = lambda _: world.sleep(60)
    world.limits = BatchLimits(seconds=1)
    world.run(*(entry(f"a/a:{number}") for number in range(7)))
    assert world.publication.times == [61, 121, 180]
    assert [len(names) for names in world.publication.transactions] == [3, 3, 1]


@pytest.mark.parametrize("how", ["build", "fetch"])
def test_a_hanging_image_delays_no_other(world: World, how: str) -> None:
    world.parallel, world.limits = 2, BatchLimits(seconds=100)
    if how == "fetch":
        world.arrivals["a/a:0"] = 10**6
    lasts = {"a/a:0": 10**6} if how == "build" else {}

    world.before = lambda name: world.sleep(lasts.get(name, 60))
    world.building = {"a/a:0": BuildError("it did not end within its deadline")}
    report = world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert results(report) == {"a/a:0": "failed", "a/a:1": "published", "a/a:2": "published", "a/a:3": "published"}
    assert world.publication.transactions[-1] == [], "what is known of a/a:0"
    assert world.publication.times[-2] <= 280, "two minutes of builds, and a wait for the transaction"


def test_what_finishes_together_is_published_and_reported_in_the_order_of_the_list(world: World) -> None:
    world.parallel = 4
    lasts = {"a/c:1": 4, "a/b:1": 3, "a/d:1": 2, "a/a:1": 1}
    world.before = lambda name: world.sleep(lasts[name])
    report = world.run(*map(entry, lasts))
    assert world.publication.transactions == [["a/c:1", "a/b:1", "a/d:1", "a/a:1"]]
    assert list(report.outcomes) == list(lasts)
    assert world.display.lines == [f"{name}: published: {report.outcomes[name].reason}" for name in lasts]


def test_small_images_come_first_and_failing_ones_last(world: World) -> None:
    built: list[str] = []
    world.before = built.append
    world.sizes = {"a/big:1": 9, "a/failing:1": 1, "a/small:1": 2}
    failing = LastOutcome(FAILING, "it does not start", 5, attempt="another")
    world.run(entry("a/big:1"), entry("a/failing:1"), entry("a/small:1"), outcomes=Outcomes({"a/failing:1": failing}))
    assert built == ["a/small:1", "a/big:1", "a/failing:1"]


def test_what_the_run_does_when_it_stops_ends_at_once(world: World) -> None:
    world.parallel, world.limits = 2, BatchLimits(size=1)
    world.publication.refuse = RepositoryError("another transaction is open")
    world.run(entry("a/a:1"), entry("a/b:1"))
    assert world.builder.stopped


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
    world.before = lambda _: world.sleep(120)
    world.run(entry("a/a:1"), both)
    assert world.publication.transactions[2:] == [["a/a:1"], ["a/b:1"]]

    world.limits = BatchLimits()
    world.publication.room = 2 * built(digest("x linux/amd64")).unpacked_size
    report = world.run(entry("a/a:1"), both)
    assert results(report) == {"a/a:1": "published", "a/b:1": "failed"}
    assert digest("same linux/amd64") not in world.builder.gone


def test_a_finished_image_waits_no_longer_than_the_limit(world: World) -> None:
    """Whatever the next images do: they are built, or their layers do not arrive."""
    world.limits = BatchLimits(seconds=100)

    world.before = lambda _: world.sleep(60)
    world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert world.publication.transactions == [["a/a:0", "a/a:1"], ["a/a:2", "a/a:3"]]
    assert world.publication.times == [160, 240]


def test_a_finished_image_does_not_wait_for_layers_longer_than_the_limit(world: World) -> None:
    world.limits = BatchLimits(seconds=100)
    world.arrivals = {"a/a:1": 90, "a/a:2": 5000}
    world.run(*(entry(f"a/a:{number}") for number in range(4)))
    assert world.publication.transactions == [["a/a:0", "a/a:1", "a/a:3"], ["a/a:2"]]
    assert world.publication.times == [100, 5000]


def test_a_finished_image_at_its_time_limit_does_not_wait_for_a_build(world: World) -> None:
    world.limits = BatchLimits(seconds=100)
    world.arrivals = {"a/a:1": 100, "a/a:2": 160}
    world.answers["a/a:2"] = answer("two", [AMD64, ARM64])

    world.before = lambda name: world.sleep({"a/a:1": 60, "a/a:2": 120}.get(name, 0))
    world.run(entry("a/a:0"), entry("a/a:1"), entry("a/a:2", [AMD64, ARM64]))
    assert world.publication.transactions == [["a/a:0"], ["a/a:1"], ["a/a:2"]]
    assert world.publication.times == [100, 260, 400]


@pytest.mark.parametrize("where", ["fetching", "building"])
def test_a_full_disk_stops_the_run_and_publishes_what_is_finished(world: World, where: str) -> None:
    getattr(world, where)["a/b:00"] = SpaceError("no room left", hint="free space")
    names = ["a/a:1", *(f"a/b:{number:02}" for number in range(15))]
    report = world.run(*map(entry, names))
    (finished,) = world.publication.transactions
    assert finished[0] == "a/a:1"
    assert "a/b:14" not in finished, "nothing is begun on a full disk"
    assert results(report) == {name: "published" if name in finished else "not tried" for name in names}
    assert isinstance(report.stopped, SpaceError)
    assert report.exit_code == 4


def test_an_image_that_lacked_space_beside_others_is_tried_again_alone(world: World) -> None:
    """What the others took is free again once they are published."""
    world.parallel = 2
    tries: list[int] = []
    small, big = [entry(f"a/a:{number:02}") for number in range(13)], entry("a/big:1")

    def build(name: str) -> None:
        world.building.pop(big.name, None)
        if name == big.name:
            tries.append(len(world.publication.transactions))
            if len(tries) == 1:
                world.building[name] = SpaceError("no space for the SIF")

    world.before = build
    report = world.run(*small[:2], big, *small[2:])
    assert set(results(report).values()) == {"published"}
    assert tries == [0, 1], "the finished ones are published before its second try"
    assert report.stopped is None


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
    assert len(world.builder.kept) == 5, "no more are built"


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
