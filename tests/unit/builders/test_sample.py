from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.builders.sample import Sample, open_sample

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = [f"sha256:{number:064x}" for number in range(2000)]


def chosen(sample: Sample) -> list[str]:
    return [image for image in IMAGES if sample.has(image)]


def test_a_share_of_the_images_is_chosen_all_of_them_or_none() -> None:
    assert 100 < len(chosen(Sample(b"secret", 0.1))) < 300
    assert chosen(Sample(b"secret", 1.0)) == IMAGES
    assert chosen(Sample(b"secret", 0.0)) == []


def test_the_choice_is_the_deployments_own_and_outlives_a_run(tmp_path: Path) -> None:
    first = chosen(open_sample(tmp_path / "secret", 0.1))
    assert chosen(open_sample(tmp_path / "secret", 0.1)) == first
    assert chosen(open_sample(tmp_path / "other", 0.1)) != first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
