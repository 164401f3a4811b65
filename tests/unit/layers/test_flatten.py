from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers.flatten import FlattenedTree, flatten
from publisher.layers.flatten_plan import DROP, KEEP, RENAME, FlattenPlan
from publisher.layers.limits import LayerLimits
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar

if TYPE_CHECKING:
    from pathlib import Path

# What a tree looks like is compared with umoci and Apptainer in tests/system/build/test_fidelity.py; here is the rest.


def tree_of(stack: list[list[Entry]], where: Path, limits: LayerLimits | None = None) -> FlattenedTree:
    _, indexes = indexed([tar(layer) for layer in stack], where)
    return flatten(indexes, limits or LayerLimits())


def plan_of(stack: list[list[Entry]], where: Path, limits: LayerLimits | None = None) -> FlattenPlan:
    return tree_of(stack, where, limits).finish()


def new_names(plan: FlattenPlan) -> dict[int, list[bytes]]:
    first = {entry: plan.new_names.first(entry) for entry in plan.new_names}
    return {entry: [plan.new_names.path(node), *plan.new_names.following(node)] for entry, node in first.items()}


def test_a_plan_has_an_action_for_every_entry(tmp_path: Path) -> None:
    lower = [directory("usr"), symlink("bin", "usr"), file("old"), file("same")]
    upper = [file("bin/new"), file(".wh.old"), hardlink("other", "same"), file("deep/down")]
    plan = plan_of([lower, upper], tmp_path)
    assert [list(actions) for actions in plan.actions] == [[KEEP, KEEP, DROP, RENAME], [RENAME, DROP, DROP, KEEP]]
    assert new_names(plan) == {3: [b"same", b"other"], 1 << 32: [b"usr/new"]}
    assert [*plan.implied_directories] == [b"deep"]


def test_what_the_tree_policy_drops_is_counted(tmp_path: Path) -> None:
    stack = [
        [Entry("char", "dev/null"), Entry("char", "dev/zero"), file(".cvmfscatalog"), directory("a/.cvmfs"), file("a/.cvmfs/x")],
        [directory(".wh.d"), file(".wh.d/x")],
    ]
    plan = plan_of(stack, tmp_path)
    assert plan.dropped == {"device nodes": 2, "names that CVMFS reserves": 2, "names of whiteouts": 1}
    assert [*plan.implied_directories] == [b"dev", b"a"]
    assert not any(map(any, plan.actions))


def test_links_that_cvmfs_clients_expand_stay_and_are_counted(tmp_path: Path) -> None:
    plan = plan_of(
        [[symlink("site", "$(CVMFS_SITE:-real)"), symlink("money", "$HOME"), symlink("gone", "$(X)")], [file(".wh.gone")]],
        tmp_path,
    )
    assert plan.dropped == {"links with $(, which clients of CVMFS expand": 1}
    assert [list(actions) for actions in plan.actions] == [[KEEP, KEEP, DROP], [DROP]]


def test_a_hard_link_to_a_device_is_dropped_too(tmp_path: Path) -> None:
    plan = plan_of([[Entry("char", "null"), hardlink("also", "null")]], tmp_path)
    assert plan.dropped == {"device nodes": 2}
    assert new_names(plan) == {}


@pytest.mark.parametrize(
    ("stack", "problem"),
    [
        ([[file("a"), hardlink("b", "c")]], "layer 1: b'b' is a hard link to b'c', which does not exist"),
        ([[directory("d")], [hardlink("b", "d")]], "layer 2: b'b' is a hard link to b'd', which is a directory"),
        ([[file("a"), hardlink("a", "a")]], "hard link to b'a', which does not exist"),
        ([[file("a")], [file(".wh.a"), hardlink("b", "a")]], "hard link to b'a', which does not exist"),
        ([[symlink("l", "l"), file("l/x")]], "too many symbolic links"),
        ([[symlink("a", "b"), symlink("b", "/a"), file("b/x")]], "too many symbolic links"),
        ([[directory("d"), file("d/.wh.")]], "whiteout without a file name"),
        ([[directory("d"), file("d/x")], [file("d/.wh..")]], r"layer 2: whiteout without a file name: b'd/\.wh\.\.'"),
        ([[directory("d"), file("x")], [file("d/.wh...")]], "layer 2: whiteout without a file name"),
    ],
)
def test_stacks_that_cannot_be_unpacked_are_refused_with_the_layer(
    stack: list[list[Entry]], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(LayerError, match=problem):
        plan_of(stack, tmp_path)


def test_limits_of_layers_and_entries(tmp_path: Path) -> None:
    stack = [[file("a"), file("b")], [file("a"), file("c")]]
    plan_of(stack, tmp_path, LayerLimits(layers=2, entries=3))
    with pytest.raises(LayerError, match="2 layers, more than 1"):
        plan_of(stack, tmp_path, LayerLimits(layers=1))
    with pytest.raises(LayerError, match="more than 2 entries"):
        plan_of(stack, tmp_path, LayerLimits(entries=2))


def test_links_lead_to_no_path_longer_than_the_limit(tmp_path: Path) -> None:
    """A link to ``d/d``, which has a link to ``d/d`` ...: no entry has such paths."""
    links = [symlink("/".join(["l"] * depth), "d/" * 20) for depth in range(1, 20)]
    for last in (file("/".join(["l"] * 19)), directory("/".join(["l"] * 19 + ["d"])), file("/".join(["l"] * 19 + ["x"]))):
        plan_of([[*links[:2], file("l/l/x")]], tmp_path, LayerLimits(path_length=81))
        with pytest.raises(LayerError, match=r"a path of \d\d\d bytes, more than 100 are allowed"):
            plan_of([[*links, last]], tmp_path, LayerLimits(path_length=100))
    with pytest.raises(LayerError, match="a path of 81 bytes, more than 80"):
        plan_of([[*links[:2], file("l/l/x")]], tmp_path, LayerLimits(path_length=80))


def test_replaced_and_implied_names_count_while_they_exist(tmp_path: Path) -> None:
    layers = [[file(f"{number}-{name}") for name in range(10)] for number in range(4)]
    with pytest.raises(LayerError, match="more than 10 entries"):
        tree_of([*layers], tmp_path, LayerLimits(entries=10))
    removing = [[*layer, *(file(f".wh.{number - 1}-{name}", b"") for name in range(10))] for number, layer in enumerate(layers)]
    assert sum(map(any, plan_of(removing, tmp_path, LayerLimits(entries=20)).actions)) == 1
    with pytest.raises(LayerError, match="more than 10 entries"):
        tree_of([[file("d/" * 30 + "x")]], tmp_path, LayerLimits(entries=10))


def test_long_chains_of_links_are_refused(tmp_path: Path) -> None:
    there_and_back = "/".join(["d", ".."] * 600)
    stack = [[directory("d"), *(symlink(f"l{number}", f"{there_and_back}/l{number + 1}") for number in range(20)), file("l0/x")]]
    with pytest.raises(LayerError, match="too many symbolic links"):
        plan_of(stack, tmp_path)


def test_applying_layers_can_be_stopped_between_entries(tmp_path: Path) -> None:
    class Overdue(Exception):  # noqa: N818 - a test's own
        pass

    def tick() -> None:
        raise Overdue

    _, indexes = indexed([tar([file("a")])], tmp_path)
    with pytest.raises(Overdue):
        flatten(indexes, tick=tick)


def test_links_cannot_leave_the_root(tmp_path: Path) -> None:
    plan = plan_of([[symlink("up", "../../../.."), symlink("l", "/../../etc")], [file("up/a"), file("l/b")]], tmp_path)
    assert new_names(plan) == {1 << 32: [b"a"], 1 << 32 | 1: [b"etc/b"]}
    assert [*plan.implied_directories] == [b"etc"]


@pytest.fixture
def tree(tmp_path: Path) -> FlattenedTree:
    entries = [
        *(directory("usr/bin"), file("usr/bin/dash"), symlink("usr/bin/sh", "dash"), symlink("bin", "/usr/bin")),
        *(symlink("dangling", "no/where"), symlink("loop", "loop"), symlink("reserved", ".cvmfs/x"), file("file")),
    ]
    return tree_of([entries], tmp_path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"bin/sh", "file"),
        (b"bin", "directory"),
        (b"", "directory"),
        (b"bin/no", None),
        (b"dangling", None),
        (b"loop", None),
        (b"loop/x", None),
        (b"file/x", None),
    ],
)
def test_lookup_follows_symbolic_links(tree: FlattenedTree, path: bytes, kind: str | None) -> None:
    assert tree.lookup(path) == kind


@pytest.mark.parametrize(
    ("path", "spot"),
    [
        (b"bin/new", b"usr/bin/new"),
        (b"dangling/new", b"no/where/new"),
        (b"bin", b"usr/bin"),
        (b"new/dir", b"new/dir"),
        (b"file", None),
        (b"file/x", None),
        (b"loop/x", None),
        (b"reserved", None),
    ],
)
def test_the_destination_of_an_entry(tree: FlattenedTree, path: bytes, spot: bytes | None) -> None:
    assert tree.destination(path) == spot


def test_removing_a_path_removes_everything_below_it(tree: FlattenedTree) -> None:
    for path in (b"usr", b"file", b"no/such/thing"):
        tree.remove(path)
    plan = tree.finish()
    assert list(plan.actions[0]) == [DROP, DROP, DROP, KEEP, KEEP, KEEP, KEEP, DROP]
    assert [*plan.implied_directories] == []
