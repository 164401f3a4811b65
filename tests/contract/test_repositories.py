"""What every repository does, whatever stands behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.errors import RepositoryError
from tests.support import children

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.repositories import Repository, Transaction

ROCKY = ".images/0a/rocky"
DEBIAN = ".images/0b/debian"
INDEX = ".publisher/index.json"

UNSAFE = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "a/./b", "a//b", "a/"),
    *("a\nb", "a\0b", "a\x7f", "\x1b[31m", "\udc80", "x" * 256, "a/" + "é" * 128),
]


class DeliberateError(Exception):
    """The caller's work fails in the middle of a transaction."""


def make(tree: Path, content: bytes = b"#!") -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_bytes(content)
    (tree / "bin/bash").symlink_to("sh")


def publish(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    with repository.transaction() as transaction:
        for step in steps:
            step(transaction)


def publish_rocky(repository: Repository) -> None:
    """A tree, a link to it and an index."""
    publish(
        repository,
        lambda change: make(change.tree(ROCKY)),
        lambda change: change.link("htc/rocky:9", f"../{ROCKY}"),
        lambda change: change.write(INDEX, b"1"),
    )


def fail_after(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    def fail(_change: Transaction) -> None:
        raise DeliberateError

    with pytest.raises(DeliberateError):
        publish(repository, *steps, fail)


def refused(repository: Repository, *steps: Callable[[Transaction], object]) -> None:
    """The last step, and only that, is refused."""
    with repository.transaction() as transaction:
        for step in steps[:-1]:
            step(transaction)
        with pytest.raises(RepositoryError):
            steps[-1](transaction)


def test_it_has_a_name(repository: Repository) -> None:
    assert repository.name


def test_a_new_repository_holds_nothing(repository: Repository) -> None:
    assert repository.recover() == []
    assert repository.links() == {}
    assert repository.read(INDEX) is None
    assert not repository.exists(ROCKY)


def test_a_transaction_is_visible_when_its_block_has_ended_and_not_before(repositories: Callable[[], Repository]) -> None:
    reader = repositories()
    with repositories().transaction() as transaction:
        make(transaction.tree(ROCKY))
        transaction.link("htc/rocky:9", f"../{ROCKY}")
        transaction.write(INDEX, b"1")
        assert not reader.exists(ROCKY)
        assert reader.links() == {}
        assert reader.read(INDEX) is None
    assert reader.read(f"{ROCKY}/bin/sh") == b"#!"
    assert reader.read("htc/rocky:9/bin/bash") == b"#!"
    assert reader.links() == {"htc/rocky:9": f"../{ROCKY}"}
    assert reader.read(INDEX) == b"1"


def test_nothing_of_a_block_that_raises_becomes_visible(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(
        repositories(),
        lambda change: make(change.tree(DEBIAN)),
        lambda change: change.link("htc/rocky:9", f"../{DEBIAN}"),
        lambda change: change.write(INDEX, b"2"),
        lambda change: change.remove(ROCKY),
    )
    reader = repositories()
    assert not reader.exists(DEBIAN)
    assert reader.links() == {"htc/rocky:9": f"../{ROCKY}"}
    assert reader.read(INDEX) == b"1"
    assert reader.exists(f"{ROCKY}/bin/sh")


def test_what_a_failed_transaction_wanted_can_be_asked_for_again(repository: Repository) -> None:
    fail_after(repository, lambda change: make(change.tree(ROCKY), b"half"))
    publish_rocky(repository)
    assert repository.read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_transaction_without_changes_changes_nothing(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository)
    assert repository.read(INDEX) == b"1"
    assert repository.exists("htc/rocky:9")


def test_many_trees_go_into_one_transaction(repository: Repository) -> None:
    trees = [f".images/{number % 7:02x}/{number:04x}" for number in range(100)]
    with repository.transaction() as transaction:
        for tree in trees:
            make(transaction.tree(tree), tree.encode())
            transaction.link(f"many/image:{tree[-4:]}", f"../{tree}")
    assert [repository.read(f"many/image:{tree[-4:]}/bin/sh") for tree in trees] == [tree.encode() for tree in trees]


def test_a_second_transaction_is_refused_and_the_first_unharmed(repositories: Callable[[], Repository]) -> None:
    first = repositories()
    with first.transaction() as transaction:
        make(transaction.tree(ROCKY))
        for second in (repositories(), first):
            with pytest.raises(RepositoryError, match="transaction"), second.transaction():
                pytest.fail("a second transaction was opened")
        transaction.link("htc/rocky:9", f"../{ROCKY}")
    assert repositories().exists("htc/rocky:9/bin/sh")


def test_recovering_leaves_an_open_transaction_alone(repositories: Callable[[], Repository]) -> None:
    with repositories().transaction() as transaction:
        make(transaction.tree(ROCKY))
        assert repositories().recover() == []
    assert repositories().exists(f"{ROCKY}/bin/sh")


def test_recovering_changes_nothing_when_there_is_nothing_to_recover(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(repositories(), lambda change: make(change.tree(DEBIAN)))
    assert [repositories().recover() for _ in range(2)] == [[], []]
    assert repositories().read(f"{ROCKY}/bin/sh") == b"#!"


def test_a_reader_never_finds_an_index_that_names_what_is_not_there(repositories: Callable[[], Repository]) -> None:
    """The index names a shard and an image; a child publishes new ones as long as we read."""

    def publish_all() -> None:
        repository = repositories()
        for serial in range(20):
            with repository.transaction() as transaction:  # in the order that would be wrong
                transaction.write(INDEX, json.dumps([f".publisher/shards/{serial}.json", f"htc/rocky:{serial}/bin/sh"]).encode())
                transaction.write(f".publisher/shards/{serial}.json", b"{}")
                transaction.link(f"htc/rocky:{serial}", f"../.images/0a/{serial}")
                make(transaction.tree(f".images/0a/{serial}"))

    reader = repositories()
    child = children.start(publish_all)
    named = [""]
    while "htc/rocky:19/bin/sh" not in named and children.running(child):
        named = json.loads(reader.read(INDEX) or b"[]")
        assert [path for path in named if not reader.exists(path)] == []
    assert children.end(child) == 0
    assert all(reader.exists(path) for path in json.loads(reader.read(INDEX) or b""))


@pytest.mark.parametrize("path", UNSAFE, ids=ascii)
def test_an_unsafe_path_is_refused_everywhere(repository: Repository, path: str) -> None:
    with repository.transaction() as transaction:
        for change in (
            lambda: transaction.tree(path),
            lambda: transaction.link(path, "x"),
            lambda: transaction.write(path, b""),
            lambda: transaction.remove(path),
        ):
            with pytest.raises(RepositoryError):
                change()
    for look in (repository.read, repository.exists):
        with pytest.raises(RepositoryError):
            look(path)


@pytest.mark.parametrize("path", ["htc/rocky:9/etc/passwd", "htc/rocky:9/bin", f"{ROCKY}/bin/bash/x"])
def test_no_path_for_a_change_goes_through_a_link(repository: Repository, path: str) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        for change in (
            lambda: transaction.tree(path),
            lambda: transaction.link(path, "x"),
            lambda: transaction.write(path, b""),
            lambda: transaction.remove(path),
        ):
            with pytest.raises(RepositoryError):
                change()
    assert repository.exists(f"{ROCKY}/bin/sh")


def test_nothing_goes_below_a_file(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: change.write(f"{INDEX}/x", b""))
    refused(repository, lambda change: change.tree(f"{INDEX}/x"))
    assert repository.read(f"{INDEX}/x") is None
    assert not repository.exists(f"{INDEX}/x")


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


# clones


def cloned_or_made(change: Transaction, path: str) -> bool:
    """A tree like ROCKY's at ``path``, cloned where that can be done; whether it could."""
    tree = change.clone(ROCKY, path)
    if tree is None:
        make(change.tree(path))
    return tree is not None


def test_a_clone_is_the_published_tree_and_can_be_changed(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    with repositories().transaction() as transaction:
        tree = transaction.clone(ROCKY, ".images/0a/next")
        if tree is None:
            tree = transaction.tree(".images/0a/next")
            make(tree)
        assert (tree / "bin/sh").read_bytes() == b"#!"
        assert not repositories().exists(".images/0a/next")
        assert repositories().read(".images/0a/next/bin/sh") is None
        (tree / "bin/sh").write_bytes(b"changed")
        (tree / "bin/bash").unlink()
        transaction.link("htc/rocky:9", "../.images/0a/next")
    reader = repositories()
    assert reader.read("htc/rocky:9/bin/sh") == b"changed"
    assert not reader.exists("htc/rocky:9/bin/bash")
    assert reader.read(f"{ROCKY}/bin/bash") == b"#!"


def test_a_clone_alone_is_published(repository: Repository) -> None:
    publish_rocky(repository)
    publish(repository, lambda change: cloned_or_made(change, ".images/0a/next"))
    assert repository.read(".images/0a/next/bin/bash") == b"#!"


def test_a_repository_that_clones_does(repository: Repository) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        assert cloned_or_made(transaction, ".images/0a/next") == repository.clones


def test_nothing_of_a_clone_is_left_by_a_block_that_raises(repositories: Callable[[], Repository]) -> None:
    publish_rocky(repositories())
    fail_after(repositories(), lambda change: cloned_or_made(change, ".images/0a/next"))
    assert not repositories().exists(".images/0a/next")
    publish(repositories(), lambda change: make(change.tree(".images/0a/next"), b"made"))
    assert repositories().read(".images/0a/next/bin/sh") == b"made"


def test_a_cancelled_clone_makes_way_for_a_tree(repository: Repository) -> None:
    publish_rocky(repository)
    publish(
        repository,
        lambda change: cloned_or_made(change, ".images/0a/next"),
        lambda change: change.remove(".images/0a/next"),
        lambda change: make(change.tree(".images/0a/next"), b"made"),
        lambda change: change.write(INDEX, b"2"),
    )
    assert repository.read(".images/0a/next/bin/sh") == b"made"
    assert repository.read(INDEX) == b"2"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (".images/0a/missing", ".images/0a/next"),
        (INDEX, ".images/0a/next"),
        ("htc/rocky:9", ".images/0a/next"),
        (ROCKY, ".images/ff/next"),
    ],
)
def test_what_cannot_be_cloned_is_made_as_a_tree(repository: Repository, source: str, path: str) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        assert transaction.clone(source, path) is None
        make(transaction.tree(path), b"made")
    assert repository.read(f"{path}/bin/sh") == b"made"


def test_a_clone_comes_first_and_is_one(repository: Repository) -> None:
    publish_rocky(repository)
    with repository.transaction() as transaction:
        cloned_or_made(transaction, ".images/0a/first")
        assert transaction.clone(ROCKY, ".images/0a/second") is None
    with repository.transaction() as transaction:
        transaction.write(INDEX, b"2")
        assert transaction.clone(ROCKY, ".images/0a/third") is None
    assert repository.exists(".images/0a/first/bin/sh")
    assert not repository.exists(".images/0a/second")
    assert repository.read(INDEX) == b"2"


def test_nothing_is_put_above_or_below_a_clone(repository: Repository) -> None:
    publish_rocky(repository)
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/next"), lambda change: change.tree(".images/0a/next/x"))
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/more"), lambda change: change.link(".images/0a", "x"))
    refused(repository, lambda change: cloned_or_made(change, ".images/0a/same"), lambda change: change.tree(".images/0a/same"))
    assert repository.read(".images/0a/next/bin/sh") == b"#!"
