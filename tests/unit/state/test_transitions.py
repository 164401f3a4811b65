from __future__ import annotations

import pytest

from publisher.contract.records import CURRENT, EXPIRING, SUPERSEDED, Record, Version
from publisher.errors import UsageError
from publisher.state import paths, transitions
from tests.support.publisher.built_values import built, digest

NOW = 1_800_000_000
BOTH = ("sandbox", "sif")


def version(text: str, forms: tuple[str, ...] = BOTH, state: str = CURRENT, since: int = 1) -> Version:
    made = transitions.make_version(digest(text), built(text), forms, since, file_index="f" * 64)
    return Version.from_json({**made.to_json(), "state": state})


def record(*versions: Version, **others: tuple[Version, ...]) -> Record:
    return Record("a/a:1", "docker.io/a/a:1", digest("tag"), {"amd64": versions, **others})


def succeeded(before: Record, current: Version) -> list[tuple[str, set[str], str, int]]:
    after = transitions.set_current(before, before.reference, before.digest, {"amd64": current}, before.name)
    return shown(after)


def shown(of: Record, platform: str = "amd64") -> list[tuple[str, set[str], str, int]]:
    """Manifest, forms, state and since when, of each version."""
    return [(one.digest, forms(one), one.state, one.since) for one in of.platforms[platform]]


def forms(one: Version) -> set[str]:
    return {form for form in BOTH if getattr(one, form) is not None}


def test_a_form_that_a_build_has_no_more_is_superseded_by_itself() -> None:
    one = digest("one")
    for wanted, left in ((("sif",), {"sandbox"}), (("sandbox",), {"sif"})):
        before = record(version("one"))
        assert succeeded(before, transitions.renew(version("one"), wanted, NOW)) == [
            (one, set(wanted), CURRENT, NOW),
            (one, left, SUPERSEDED, NOW),
        ]


def test_a_build_that_returns_with_fewer_forms_leaves_none_behind_unnamed() -> None:
    before = record(version("two"), version("one", state=SUPERSEDED, since=7))
    after = succeeded(before, transitions.renew(version("one"), ("sif",), NOW))
    assert after == [
        (digest("one"), {"sif"}, CURRENT, NOW),
        (digest("two"), {"sandbox", "sif"}, SUPERSEDED, NOW),
        (digest("one"), {"sandbox"}, SUPERSEDED, 7),
    ], "its sandbox was superseded long ago, and goes at that pace"


def test_a_form_that_comes_back_is_listed_once() -> None:
    before = record(version("one", ("sif",)), version("one", ("sandbox",), SUPERSEDED))
    assert succeeded(before, transitions.renew(version("one"), BOTH, NOW)) == [(digest("one"), {"sandbox", "sif"}, CURRENT, NOW)]


def test_another_sif_of_the_same_build_leaves_the_first_to_those_who_were_told_of_it() -> None:
    """As when other tools' versions made it."""
    other = built("other tools")
    current = transitions.make_version(digest("one"), other, BOTH, NOW)
    after = transitions.set_current(record(version("one")), "s", digest("tag"), {"amd64": current}, "a/a:1")
    first, second = after.platforms["amd64"]
    assert first.sif is not None
    assert second.sif is not None
    assert (first.sif.sha256, second.sif.sha256) == (other.sha256, built("one").sha256)
    assert (second.sandbox, second.state) == (None, SUPERSEDED)


def test_what_is_left_of_a_build_is_no_version_to_roll_back_to() -> None:
    alone = record(version("one", ("sif",)), version("one", ("sandbox",), SUPERSEDED))
    with pytest.raises(UsageError, match="no previous version"):
        transitions.roll_back(alone, NOW)
    before = record(*alone.platforms["amd64"], version("old", state=SUPERSEDED))
    back = transitions.roll_back(before, NOW)
    assert shown(back)[0] == (digest("old"), {"sandbox", "sif"}, CURRENT, NOW)
    assert shown(transitions.undo_rollback(back, NOW))[0] == (digest("one"), {"sif"}, CURRENT, NOW)


def test_one_of_two_versions_of_a_build_can_go() -> None:
    there = record(version("one", ("sif",)), version("one", ("sandbox",), SUPERSEDED))
    left = transitions.drop_versions(there, there.platforms["amd64"][1:])
    assert shown(left) == [(digest("one"), {"sif"}, CURRENT, 1)]


def test_a_version_of_the_older_tool_gets_a_sif_and_keeps_its_sandbox_where_that_is_wanted() -> None:
    old = Version(digest("one"), sandbox=".images/ab/" + "c" * 62, sif=None, published=1)
    assert forms(transitions.add_sif(old, built("one"), BOTH, NOW)) == {"sandbox", "sif"}
    alone = transitions.add_sif(old, built("one"), ("sif",), NOW)
    assert succeeded(record(old), alone) == [
        (digest("one"), {"sif"}, CURRENT, NOW),
        (digest("one"), {"sandbox"}, SUPERSEDED, NOW),
    ]


def test_a_platform_leaves_like_a_name_and_the_others_stay() -> None:
    there = record(version("one"), arm64=(version("arm"), version("old arm", state=SUPERSEDED)))
    after = transitions.expire(there, NOW, NOW + 9, ["arm64"])
    assert [(one.state, one.until) for one in after.platforms["arm64"]] == [(EXPIRING, NOW + 9), (SUPERSEDED, None)]
    assert after.platforms["amd64"][0].state == CURRENT
    assert transitions.links(after).keys() == {"a/a:1", ".arch/arm64/a/a:1"}
    gone = transitions.supersede_expired(after, NOW + 9)
    assert transitions.links(gone).keys() == {"a/a:1"}
    assert gone.platforms["arm64"][0].state == SUPERSEDED


def test_no_other_platform_stands_in_for_one_that_is_no_sandbox() -> None:
    assert transitions.links(record(version("one", ("sif",)), arm64=(version("arm"),))).keys() == {".arch/arm64/a/a:1"}


def test_the_plain_name_moves_to_the_platform_that_is_left() -> None:
    there = transitions.expire(record(version("one"), arm64=(version("arm"),)), NOW, NOW + 9, ["amd64"])
    assert "a/a:1" in transitions.links(there)
    target = paths.sandbox_path(digest("arm"))
    assert transitions.links(transitions.supersede_expired(there, NOW + 9))["a/a:1"] == f"../{target}"
