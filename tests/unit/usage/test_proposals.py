"""What the use of images suggests; nothing is ever removed by it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.usage.list_patch import removal_patch
from publisher.usage.proposals import UnusedName, proposed_images, unused_names
from publisher.usage.records import NameUsage, UseCount
from tests.support.page.world import NOW, PageWorld, record, version

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.contract.records import Record

MONTHS = NOW - 90 * 86400
TEMPLATE = "{repository}:{tag}"
LIST = """\
version: 1
groups:
  - title: A group
    images:
      # about debian
      - debian:12
      - image: htc/rocky:9  # ours
        owner: htc

      - image: htc/tags
        tags: [a, b, "1.*"]
      - image: htc/two
        tags: [x, y]
  - title: Another group
    images: [ubuntu:22, fedora:40]
"""


def used(last: int) -> NameUsage:
    return NameUsage(UseCount(5, 1, last))


def old(name: str) -> Record:
    return record(name, version(name, published=MONTHS - 1))


def test_a_name_is_unused_if_it_is_old_and_no_job_has_used_it_since() -> None:
    world = PageWorld()
    names = ("htc/rocky:9", "htc/used:1", "htc/long-ago:1", "htc/new:1")
    records = {name: old(name) for name in names} | {"htc/new:1": record("htc/new:1", version("new", published=MONTHS + 1))}
    world.snapshot = world.snapshot.with_records(records)
    usage = {"htc/used:1": used(MONTHS), "htc/long-ago:1": used(MONTHS - 1)}
    found = [one for one in unused_names(world.content.known, usage, MONTHS) if one.name in names]
    (rocky,) = [entry for entry in world.image_list.entries if entry.name == "htc/rocky:9"]
    assert found == [UnusedName("htc/long-ago:1", MONTHS - 1, 0), UnusedName("htc/rocky:9", 0, rocky.line)]


def test_a_candidate_is_proposed_unless_it_is_published_or_listed_by_now() -> None:
    world = PageWorld()
    candidates = {"docker.io/htc/new:1": UseCount(9), "docker.io/htc/expiring:1": UseCount(8), "docker.io/a/b:1": UseCount(7)}
    assert [one.reference for one in proposed_images(world.content.known, candidates)] == ["docker.io/a/b:1"]


def patched(where: Path, text: str, *names: str) -> tuple[str, list[str]]:
    """Return the list after ``patch`` has applied the proposal, and the names that are left."""
    patch, left = removal_patch(text.encode(), "images.yaml", names, TEMPLATE)
    (where / "images.yaml").write_text(text)
    if patch:
        subprocess.run(["patch", "-p1"], input=patch.encode(), cwd=where, check=True, capture_output=True)
    return (where / "images.yaml").read_text(), left


def test_a_patch_removes_exactly_the_entries_and_keeps_comments_and_order(tmp_path: Path) -> None:
    text, left = patched(tmp_path, LIST, "htc/rocky:9", "htc/two:x", "htc/two:y")
    kept = LIST.replace("      - image: htc/rocky:9  # ours\n        owner: htc\n", "")
    assert text == kept.replace("      - image: htc/two\n        tags: [x, y]\n", "")
    assert left == []


@pytest.mark.parametrize("name", ["htc/two:x", "htc/tags:a", "library/ubuntu:22", "htc/missing:1"])
def test_what_cannot_be_taken_out_alone_is_left_to_a_person(tmp_path: Path, name: str) -> None:
    text, left = patched(tmp_path, LIST, name, "library/debian:12")
    assert text == LIST.replace("      - debian:12\n", "")
    assert left == [name]
