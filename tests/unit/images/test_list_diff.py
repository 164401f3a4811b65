from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import git
import pytest

from publisher.errors import ListError, UsageError
from publisher.images import list_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE = "{repository}:{tag}"


def text(*images: str) -> str:
    return "version: 1\ngroups:\n  - title: One\n    images:\n" + "".join(f"      - {image}\n" for image in images)


class Checkout:
    """A git repository with an image list in a subdirectory."""

    def __init__(self, where: Path) -> None:
        self.path = where / "lists" / "images.yaml"
        self.path.parent.mkdir()
        self.repository = git.Repo.init(where)
        with self.repository.config_writer() as config:
            config.set_value("user", "name", "Test")
            config.set_value("user", "email", "test@example.org")

    def commit(self, content: str | None, name: str = "lists/images.yaml") -> str:
        path = Path(str(self.repository.working_tree_dir)) / name
        if content is not None:
            path.write_text(content)
            self.repository.index.add([name])
        return self.repository.index.commit("change").hexsha


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.repository.close()  # it has processes at work


def names(found: list_diff.ListDiff) -> list[str]:
    return [entry.name for entry in found.changed.entries] + [str(pattern) for pattern in found.changed.patterns]


def test_only_what_says_something_else_is_changed(checkout: Checkout) -> None:
    base = checkout.commit(text("a/same:1", "a/other:1", "a/gone:1", "a/wild:1.*"))
    checkout.path.write_text(
        text("a/new:1", "{image: 'a/other:1', platforms: [linux/arm64]}", "a/same:1", "a/wild:1.*", "a/wild:2.*")
    )
    found = list_diff.since(base, checkout.path, TEMPLATE)
    assert [entry.name for entry in found.changed.entries] == ["a/new:1", "a/other:1"]
    assert [pattern.tags for pattern in found.changed.patterns] == [("2.*",)]
    assert found.removed == ("a/gone:1",)


def test_defaults_that_change_change_every_entry(checkout: Checkout) -> None:
    base = checkout.commit(text("a/one:1", "a/two:1"))
    checkout.path.write_text("defaults: {formats: [sif]}\n" + text("a/one:1", "a/two:1"))
    assert names(list_diff.since(base, checkout.path, TEMPLATE)) == ["a/one:1", "a/two:1"]


@pytest.mark.parametrize("before", [None, "version: 1\ngroups: nonsense\n"])
def test_without_a_list_to_compare_with_all_of_it_is_new(checkout: Checkout, before: str | None) -> None:
    if before is None:
        checkout.commit("nothing", "README.md")
        base = "HEAD"
    else:
        base = checkout.commit(before)
    checkout.path.write_text(text("a/one:1", "a/two:1"))
    assert names(list_diff.since(base, checkout.path, TEMPLATE)) == ["a/one:1", "a/two:1"]


def test_a_list_with_problems_is_refused_whatever_it_was_before(checkout: Checkout) -> None:
    base = checkout.commit(text("a/one:1"))
    checkout.path.write_text(text("a/one:1", "UPPER/case:1"))
    with pytest.raises(ListError):
        list_diff.since(base, checkout.path, TEMPLATE)


def test_what_cannot_be_compared_with_is_told(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkout.commit(text("a/one:1"))
    with pytest.raises(UsageError, match="the git revision 'nowhere' does not exist"):
        list_diff.since("nowhere", checkout.path, TEMPLATE)
    outside = tmp_path_factory.mktemp("outside") / "images.yaml"
    outside.write_text(text("a/one:1"))
    with pytest.raises(UsageError, match="is not in a git repository"):
        list_diff.since("HEAD", outside, TEMPLATE)
