"""The contract of every implementation of a repository: trees, links and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from tests.support.cvmfs.contract_changes import DEBIAN, INDEX, ROCKY, make, publish, publish_rocky, refused

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.repositories.base import Repository, Transaction


# trees


def test_a_tree_that_is_published_already_is_refused(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.tree(ROCKY))
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_tree_is_refused_where_a_link_or_a_file_stands(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.tree("htc/rocky:9"))
    refused(repository, lambda change: change.tree(INDEX))


def test_a_tree_is_refused_the_second_time_in_one_transaction(repository: Repository) -> None:
    refused(repository, lambda change: make(change.tree(ROCKY)), lambda change: change.tree(ROCKY))
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_tree_that_was_asked_for_and_not_made_fails_the_transaction(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match=ROCKY):
        publish(repository, lambda change: change.tree(ROCKY), lambda change: change.write(INDEX, b"1"))
    assert repository.read(INDEX) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_tree_that_could_not_be_filled_is_cancelled_without_the_rest(repository: Repository, made: bool) -> None:
    def half(change: Transaction) -> None:
        tree = change.tree(DEBIAN)
        if made:
            make(tree, b"half")
        change.remove(DEBIAN)

    publish(repository, half, lambda change: make(change.tree(ROCKY)), lambda change: change.write(INDEX, b"1"))
    assert not repository.exists(DEBIAN)
    assert not repository.exists(".images/0b")
    assert repository.exists(f"{ROCKY}/bin/sh")
    assert repository.read(INDEX) == b"1"


def test_a_cancelled_tree_can_be_asked_for_again_in_the_same_transaction(repository: Repository) -> None:
    publish(
        repository,
        lambda change: make(change.tree(ROCKY), b"half"),
        lambda change: change.remove(ROCKY),
        lambda change: make(change.tree(ROCKY), b"whole"),
    )
    assert repository.read(f"{ROCKY}/bin/sh") == b"whole"


# links


def test_a_link_is_replaced(repository: Repository) -> None:
    publish_rocky(repository)
    publish(
        repository,
        lambda change: make(change.tree(DEBIAN), b"debian"),
        lambda change: change.link("htc/rocky:9", f"../{DEBIAN}"),
    )
    assert repository.links() == {"htc/rocky:9": f"../{DEBIAN}"}
    assert repository.read("htc/rocky:9/bin/sh") == b"debian"


def test_of_two_links_at_one_path_the_last_counts(repository: Repository) -> None:
    publish(repository, lambda change: change.link("htc/a:1", "x"), lambda change: change.link("htc/a:1", "y"))
    assert repository.links() == {"htc/a:1": "y"}
    publish(repository, lambda change: change.link("htc/a:1", "z"), lambda change: change.link("htc/a:1", "y"))
    assert repository.links() == {"htc/a:1": "y"}


def test_a_link_that_was_removed_and_made_again_stays(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository, lambda change: change.remove("htc/rocky:9"), lambda change: change.link("htc/rocky:9", f"../{ROCKY}"))
    assert repository.links() == {"htc/rocky:9": f"../{ROCKY}"}


@pytest.mark.parametrize(
    "target",
    [
        *("", "/etc", "/", "..", "../..", "../../x", "../../../etc", ".", "./x", "x/../../../y", "x/..", "../", "x//y"),
        *("x\ny", "\0", "../$(HOME)", "\udc80"),
    ],
    ids=ascii,
)
def test_a_link_that_leaves_the_repository_or_could_is_refused(repository: Repository, target: str) -> None:
    refused(repository, lambda change: change.link("htc/rocky:9", target))
    assert repository.links() == {}


def test_a_link_does_not_replace_a_tree_or_a_file(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.link(ROCKY, "x"))
    refused(repository, lambda change: change.link("htc", "x"))
    refused(repository, lambda change: change.link(INDEX, "x"))
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"
    assert repository.read(INDEX) == b"1"


def test_a_dangling_link_is_listed_and_does_not_exist(repository: Repository) -> None:
    publish(
        repository,
        lambda change: change.link("htc/gone:1", f"../{ROCKY}"),
        lambda change: change.link("htc/self:1", "self:1"),
        lambda change: change.link("htc/below:1", "gone:1/x"),
    )
    assert repository.links() == {"htc/below:1": "gone:1/x", "htc/gone:1": f"../{ROCKY}", "htc/self:1": "self:1"}
    for path in repository.links():
        assert not repository.exists(path)
        assert repository.read(path) is None


def test_links_are_listed_by_path_and_only_outside_of_data_and_manifest(repository: Repository) -> None:
    publish_rocky(repository)
    published = {
        ".arch/arm64/htc/rocky:9": f"../../../{ROCKY}",
        "a.b/c:1": f"../{ROCKY}",
        "a/deep/er/name:1": f"../../../{ROCKY}",
        "top:1": ROCKY,
    }
    with repository.transaction() as transaction:
        for path, target in reversed(published.items()):
            transaction.link(path, target)
        transaction.link(".images/alias", "0a")
        transaction.link(".publisher/latest", "index.json")
    expected = published | {"htc/rocky:9": f"../{ROCKY}"}
    assert list(repository.links().items()) == sorted(expected.items())


def test_what_a_tree_links_to_outside_does_not_exist(repository: Repository) -> None:
    def hostile(change: Transaction) -> None:
        tree = change.tree(ROCKY)
        tree.mkdir()
        (tree / "etc").symlink_to("/etc")
        (tree / "up").symlink_to("../../../..")

    publish(repository, hostile)
    for path in (f"{ROCKY}/etc", f"{ROCKY}/etc/passwd", f"{ROCKY}/up"):
        assert not repository.exists(path)
        assert repository.read(path) is None


# files


def test_a_file_is_replaced_and_the_last_of_two_counts(repository: Repository) -> None:
    publish(repository, lambda change: change.write(INDEX, b"1"), lambda change: change.write(INDEX, b"22"))
    assert repository.read(INDEX) == b"22"
    publish(repository, lambda change: change.write(INDEX, b"3"), lambda change: change.write(INDEX, b"22"))
    assert repository.read(INDEX) == b"22"
    publish(repository, lambda change: change.write(INDEX, b""))
    assert repository.read(INDEX) == b""


def test_a_file_can_have_the_content_of_another(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "large"
    for content in (b"1", b"2", b"22", b"22"):
        source.write_bytes(content)
        publish(repository, lambda change: change.write("deep/file", source))
        assert repository.read("deep/file") == content
        assert source.read_bytes() == content


def test_a_file_does_not_replace_a_tree_or_a_link(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.write(ROCKY, b""))
    refused(repository, lambda change: change.write("htc", b""))
    refused(repository, lambda change: change.write("htc/rocky:9", b""))
    publish(repository, lambda change: change.link("latest", INDEX))
    refused(repository, lambda change: change.write("latest", b"1"))
    assert repository.links() == {"htc/rocky:9": f"../{ROCKY}", "latest": INDEX}
    assert repository.exists("htc/rocky:9/bin/sh")


def test_only_files_are_read(repository: Repository) -> None:
    publish_rocky(repository)
    assert repository.read(ROCKY) is None
    assert repository.read("htc/rocky:9") is None
    assert repository.read("htc") is None


# removals


def test_trees_links_and_files_are_removed_and_with_them_what_they_leave_empty(repository: Repository) -> None:
    publish_rocky(repository)
    publish(
        repository,
        lambda change: make(change.tree(".images/0a/other")),
        lambda change: change.write("some/deep/file", b""),
    )
    publish(
        repository,
        lambda change: change.remove(ROCKY),
        lambda change: change.remove("htc/rocky:9"),
        lambda change: change.remove("some/deep/file"),
    )
    for path in (ROCKY, "htc/rocky:9", "htc", "some/deep/file", "some"):
        assert not repository.exists(path)
    assert repository.links() == {}
    assert repository.exists(".images/0a/other/bin/sh")
    assert repository.read(INDEX) == b"1"


def test_removing_a_link_leaves_what_it_points_to(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository, lambda change: change.remove("htc/rocky:9"))
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"


def test_removing_what_is_not_there_does_nothing(repository: Repository) -> None:
    publish(repository, lambda change: change.remove(ROCKY), lambda change: change.write(INDEX, b"1"))
    assert repository.read(INDEX) == b"1"


def test_a_link_or_a_file_of_the_same_transaction_is_cancelled_by_removing_it(repository: Repository) -> None:
    publish_rocky(repository)
    publish(
        repository,
        lambda change: change.link("htc/new:1", f"../{ROCKY}"),
        lambda change: change.write("new/file", b""),
        lambda change: change.write(INDEX, b"2"),
        *(lambda change, path=path: change.remove(path) for path in ("htc/new:1", "new/file", INDEX)),
    )
    assert repository.links() == {"htc/rocky:9": f"../{ROCKY}"}
    assert repository.read("new/file") is None
    assert repository.read(INDEX) is None


def test_what_was_cancelled_is_in_nobodys_way(repository: Repository) -> None:
    publish(
        repository,
        lambda change: make(change.tree("a/b/c")),
        lambda change: change.remove("a/b/c"),
        lambda change: change.write("a/b", b"file"),
    )
    assert repository.read("a/b") == b"file"


# several changes that do not go together


@pytest.mark.parametrize("path", [ROCKY, f"{ROCKY}/bin"])
def test_two_things_at_one_path_or_below_each_other_are_refused(repository: Repository, path: str) -> None:
    refused(repository, lambda change: make(change.tree(ROCKY)), lambda change: change.link(path, "x"))
    refused(repository, lambda change: change.link(DEBIAN, "x"), lambda change: change.write(path.replace(ROCKY, DEBIAN), b""))
    assert repository.exists(f"{ROCKY}/bin/sh")
    assert repository.links() == {}


def test_nothing_is_put_or_removed_above_what_the_transaction_puts(repository: Repository) -> None:
    refused(repository, lambda change: make(change.tree(ROCKY)), lambda change: change.write(".images", b""))
    refused(repository, lambda change: change.link("htc/a:1", "x"), lambda change: change.remove("htc"))
    assert repository.exists(ROCKY)
    assert repository.links() == {"htc/a:1": "x"}


def test_nothing_is_put_below_what_the_transaction_removes(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.remove(ROCKY), lambda change: change.write(f"{ROCKY}/new", b""))
    assert not repository.exists(ROCKY)
