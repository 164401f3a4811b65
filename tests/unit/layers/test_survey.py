from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers import survey as surveys
from publisher.layers.flatten import flatten
from publisher.layers.limits import LayerLimits
from publisher.layers.survey import StreamSurvey, survey
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar

if TYPE_CHECKING:
    from pathlib import Path


def survey_of(stack: list[list[Entry]], where: Path, now: int = 2_000_000_000, limits: LayerLimits | None = None) -> StreamSurvey:
    _, indexes = indexed([tar(layer) for layer in stack], where)
    return survey(flatten(indexes).finish(), indexes, now, limits or LayerLimits())


def test_totals_include_only_surviving_entries(tmp_path: Path) -> None:
    lower = [file("gone", bytes(5000), mtime=1_900_000_000), file("a", b"12"), file("b", b"34"), file("empty", b"")]
    upper = [file(".wh.gone", b""), hardlink("c", "a"), file("d", b"1", mtime=1_800_000_000), symlink("l", "x")]
    assert survey_of([lower, upper], tmp_path) == StreamSurvey(newest=1_800_000_000, unpacked_size=5, root=(0o755, 0, 0))


def test_times_in_the_future_do_not_count(tmp_path: Path) -> None:
    stack = [[file("a", mtime=2_000_000_001), file("b", mtime=1_000_000_000), file("c", mtime=-5)]]
    assert survey_of(stack, tmp_path).newest == 1_000_000_000
    assert survey_of(stack, tmp_path, now=2_000_000_001).newest == 2_000_000_001


def test_an_image_without_a_past_is_from_the_epoch(tmp_path: Path) -> None:
    assert survey_of([[file("a", mtime=-5)]], tmp_path).newest == 0


def test_the_root_has_the_last_layers_mode_made_readable_and_root_as_owner(tmp_path: Path) -> None:
    stack = [[directory("./", 0o700, uid=1), file("a")], [file("b"), directory("./", 0o1750, uid=2, gid=3)], [file("c")]]
    assert survey_of(stack, tmp_path).root == (0o1755, 0, 0)


def test_more_owners_than_a_sif_can_hold_are_refused_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def owned(count: int) -> list[Entry]:
        return [file(f"{number}", b"", uid=2 * number + 1, gid=2 * number + 2) for number in range(count)]

    assert surveys._MAX_IDS == 65_536, "what a squashfs can hold"
    monkeypatch.setattr(surveys, "_MAX_IDS", 64)
    survey_of([owned(31)], tmp_path)
    with pytest.raises(LayerError, match=r"more than 64 different owners and groups, .* \(the image's owner"):
        survey_of([owned(32)], tmp_path)


def test_an_image_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    stack = [[file("a", bytes(600))], [file("b", bytes(600))]]
    assert survey_of(stack, tmp_path, limits=LayerLimits(unpacked_size=1200)).unpacked_size == 1200
    with pytest.raises(LayerError, match=r"unpacks to 1.2 kB, but only 1.2 kB are allowed"):
        survey_of(stack, tmp_path, limits=LayerLimits(unpacked_size=1199))
