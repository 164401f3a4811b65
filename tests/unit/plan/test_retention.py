from __future__ import annotations

from datetime import date, timedelta

import pytest

from publisher.contract.records import BLOCKED, CURRENT, EXPIRING, SUPERSEDED, Record, Sif, Version
from publisher.plan import retention
from publisher.plan.retention import RetentionLimits, plan_retention
from publisher.state import paths, transitions
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import digest, entry

DAY = 86400
NOW = 1_800_000_000
BOUNDS = RetentionLimits(grace=14 * DAY, count=100, size=10**12)


def version(text: str, state: str = CURRENT, days: float = 0, **more: object) -> Version:
    """A version in a state since so many days."""
    manifest = digest(text)
    sha256 = digest(f"sif of {text}")[7:]
    fields: dict[str, object] = {
        "sandbox": paths.sandbox_path(manifest),
        "sif": Sif(paths.sif_path(sha256), sha256, 10),
        "published": NOW - 100 * DAY,
        "unpacked_size": 100,
        "file_index": sha256,
        "state": state,
        "since": int(NOW - days * DAY),
        **more,
    }
    return Version(manifest, **fields)  # type: ignore[arg-type]  # fields of Version


def record(name: str, *versions: Version, platform: str = "amd64") -> Record:
    return Record(name, f"docker.io/{name}", digest(name), {platform: versions})


def snapshot(*listed: Record) -> Snapshot:
    return Snapshot("images.example.org", 1, records={one.name: one for one in listed})


def dropped(found: retention.RetentionPlan) -> list[tuple[str, str]]:
    return [(one.name, one.version.digest) for one in found.dropped]


def test_nothing_is_removed_before_its_grace_is_over() -> None:
    there = snapshot(
        record("a/a:1", version("new"), version("old", SUPERSEDED, 13.9)),
        record("a/b:1", version("leaving", EXPIRING, 30, until=NOW + 1)),
    )
    assert plan_retention(there, NOW, BOUNDS) == retention.RetentionPlan({}, (), (), (), 0)


def test_a_superseded_version_is_removed_with_all_its_data_after_the_grace() -> None:
    there = snapshot(record("a/a:1", version("new"), version("old", SUPERSEDED, 14)))
    found = plan_retention(there, NOW, BOUNDS)
    assert dropped(found) == [("a/a:1", digest("old"))]
    assert set(found.removals) == {paths.sandbox_path(digest("old")), paths.file_index_path(digest("old"))}
    (left,) = found.changed["a/a:1"].platforms["amd64"]
    assert (left.digest, left.state) == (digest("new"), CURRENT)


def test_an_expired_name_ends_and_its_data_waits_for_the_superseded_grace() -> None:
    there = snapshot(record("a/a:1", version("last", EXPIRING, 14, until=NOW)))
    found = plan_retention(there, NOW, BOUNDS)
    assert (found.ended, found.removals) == (("a/a:1",), ())
    gone = found.changed["a/a:1"]
    assert gone.current("amd64") is None
    assert transitions.links(gone) == {}
    assert [(one.state, one.since, one.until) for _, one in gone.versions()] == [(SUPERSEDED, NOW, None)]
    later = plan_retention(there.with_records(found.changed), NOW + 14 * DAY, BOUNDS)
    assert set(later.removals) == {paths.sandbox_path(digest("last")), paths.file_index_path(digest("last"))}
    assert there.with_records(found.changed).with_records(later.changed).records == {}


def test_data_that_another_name_still_uses_stays() -> None:
    old = version("shared", SUPERSEDED, 20)
    there = snapshot(record("a/a:1", version("new"), old), record("a/b:1", version("shared")))
    found = plan_retention(there, NOW, BOUNDS)
    assert (dropped(found), found.removals) == ([("a/a:1", digest("shared"))], ())
    both = snapshot(record("a/a:1", version("new"), old), record("a/b:1", version("newer"), version("shared", SUPERSEDED, 15)))
    gone = plan_retention(both, NOW, BOUNDS)
    assert len(gone.dropped) == 2
    assert paths.sandbox_path(digest("shared")) in gone.removals


def test_an_old_sandbox_that_two_manifests_share_stays_with_either() -> None:
    """The older tool made one directory of images that differ in their configuration alone."""
    path = ".images/ab/" + "c" * 62
    there = snapshot(
        record("a/a:1", version("new"), version("one", SUPERSEDED, 20, sandbox=path, file_index=None)),
        record("a/b:1", version("two", sandbox=path, file_index=None)),
    )
    assert plan_retention(there, NOW, BOUNDS).removals == ()


@pytest.mark.parametrize("bounds", [RetentionLimits(14 * DAY, 2, 10**12), RetentionLimits(14 * DAY, 100, 250)])
def test_a_run_removes_the_oldest_within_its_limits_and_later_runs_the_rest(bounds: RetentionLimits) -> None:
    names = {f"a/{number}:1": 20 + (number * 7) % 10 for number in range(5)}
    there = snapshot(*(record(name, version("new"), version(name, SUPERSEDED, days)) for name, days in names.items()))
    order = [(name, digest(name)) for name, _ in sorted(names.items(), key=lambda pair: -pair[1])]
    taken: list[tuple[str, str]] = []
    for left in (3, 1, 0):
        found = plan_retention(there, NOW, bounds)
        assert found.waiting == left
        taken += dropped(found)
        there = there.with_records(found.changed)
    assert taken == order


def test_one_version_larger_than_the_limit_does_not_block_the_others() -> None:
    there = snapshot(record("a/a:1", version("new"), version("huge", SUPERSEDED, 20, unpacked_size=10**6)))
    assert dropped(plan_retention(there, NOW, RetentionLimits(14 * DAY, 10, 5))) == [("a/a:1", digest("huge"))]


def test_what_is_blocked_stays_listed_and_has_no_data() -> None:
    one = record("a/a:1", version("bad", BLOCKED, 100, reason="stolen data"))
    assert plan_retention(snapshot(one), NOW, BOUNDS).changed == {}
    assert not retention.count_data_paths([one])
    assert not retention.sif_paths([one])


def test_entries_that_expire_within_thirty_days_are_announced() -> None:
    today = date(2027, 1, 1)
    entries = [
        entry(f"a/{name}:1", expires=today + timedelta(days=days))
        for name, days in (("later", 30), ("far", 31), ("soon", 0), ("over", -1))
    ]
    lines = retention.expiry_notes([*entries, entry("a/never:1")], today)
    assert lines == [
        "a/soon:1 is published until 2027-01-01, as its entry says",
        "a/later:1 is published until 2027-01-31, as its entry says",
    ]


def test_expired_entries_are_one_line_that_names_some_of_them() -> None:
    entries = [entry(f"a/b:{number}", expires=date(2027, 1, number)) for number in range(1, 9)]
    assert retention.expired_note(entries, date(2027, 1, 1)) == []
    (line,) = retention.expired_note(entries, date(2027, 1, 8))
    assert line == "7 entries have expired and are not published: a/b:1, a/b:2, a/b:3, a/b:4, a/b:5 and 2 more"
