"""The published tree against what umoci and Apptainer make of the same layers: every path, but for the allowed differences.

The way to the tree compared is the whole one: index, flatten, emit, mksquashfs (or tar2sqfs), unsquashfs. As root, Apptainer
unpacks harmless layers alone here: its build writes through a stranger's symbolic links onto the host.
"""

from __future__ import annotations

import functools
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from publisher.build.local import LocalBuilder
from publisher.build.sandbox.unpack import unpack
from publisher.build.squash.find import find_squasher
from publisher.build.squash.programs import Mksquashfs, Tar2sqfs
from publisher.build.testrun import TestRunner
from publisher.errors import LayerError
from publisher.layers.flatten import flatten
from publisher.state.paths import CATALOG_MARK
from tests.support.images.apptainer import apptainers_tree
from tests.support.images.built_layers import layout_of, request
from tests.support.images.layers import (
    Entry,
    Node,
    directory,
    file,
    indexed,
    layout,
    symlink,
    tar,
    tree_of_stream,
    tree_on_disk,
    umoci_unpack,
)
from tests.support.images.random_stacks import stacks
from tests.support.images.raw_tar import EARLY_ENDS, END, GNU, GNU_SPARSE, ODD
from tests.support.images.raw_tar import file as raw_file
from tests.support.images.runnable import runnable
from tests.support.images.stacks import ONLY_APPTAINERS, STACKS, Stack
from tests.support.images.tar_stream import NOW, squashed
from tests.support.images.tolerated_differences import ANY_TIME, ROOT, expected, same
from tests.support.publisher.host import ORDINARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.build.squash.programs import Squasher

pytestmark = pytest.mark.system

_ROOT = os.geteuid() == 0
_FOR_ROOT = (
    *("set-user-ID, sticky, closed", "devices and reserved names", "devices of both kinds"),
    *("a link's own attributes", "attributes", "attributes that are not published"),
)
_WITH_APPTAINER = (
    *("whiteout before its replacement", "opaque marker last", "opaque a/b/c, last", "whiteout of a/b, between"),
    *("written through an absolute symlink", "directory to symlink, written through afterwards"),
    *("target of a hard link replaced later", "hard link through a symlinked directory", "long targets", "127 layers"),
    *("names that are not UTF-8", "times", "times before 1970 and after 2038", "one name of every kind in one layer"),
    *("set-user-ID, sticky, closed", "attributes", "attributes that are not published", "devices of both kinds"),
)
_ADDED = (
    *(b".singularity.d", b".exec", b".run", b".shell", b".test", b"singularity", b"environment"),
    *(b"dev", b"etc", b"home", b"proc", b"root", b"sys", b"tmp", b"var"),
)
_SQUASHERS: dict[str, Callable[[], Squasher]] = {"own": find_squasher, "mksquashfs": Mksquashfs, "tar2sqfs": Tar2sqfs}


@functools.cache
def squasher(name: str) -> Squasher:
    return _SQUASHERS[name]()


@pytest.mark.parametrize("program", _SQUASHERS)
@pytest.mark.parametrize("name", STACKS)
def test_the_tree_is_umocis(name: str, program: str, tmp_path: Path) -> None:
    if not _ROOT and name in _FOR_ROOT:
        pytest.skip(f"NOT TESTED: {name}; umoci and reading what it made take root")
    layers = [tar(layer) for layer in STACKS[name]]
    _is_umocis(layers, tmp_path, squasher(program))


@pytest.mark.parametrize("name", ["long names", "long targets", "names that are not UTF-8", "owners"])
def test_the_tree_is_umocis_in_gnus_format_too(name: str, tmp_path: Path) -> None:
    _is_umocis([tar(layer, tarfile.GNU_FORMAT) for layer in STACKS[name]], tmp_path)


@pytest.mark.parametrize("program", _SQUASHERS)
@pytest.mark.parametrize("name", ODD)
def test_odd_members_are_read_as_umoci_reads_them(name: str, program: str, tmp_path: Path) -> None:
    _is_umocis([ODD[name] + END], tmp_path, squasher(program))


@pytest.mark.parametrize("name", EARLY_ENDS)
def test_archives_that_end_early_are_read_as_umoci_reads_them(name: str, tmp_path: Path) -> None:
    _is_umocis([EARLY_ENDS[name]], tmp_path)


def test_a_whiteout_with_a_prefix_where_gnu_has_times_removes_its_file(tmp_path: Path) -> None:
    lower = tar([directory("some"), directory("some/where"), file("some/where/gone"), file("gone")])
    upper = raw_file(b".wh.gone", b"", magic=GNU, tail=b"some/where")
    _is_umocis([lower, upper + END], tmp_path)
    assert not (tmp_path / "published" / "some/where/gone").exists()


@pytest.mark.parametrize("name", GNU_SPARSE)
def test_gnus_sparse_files_are_read_as_tarfile_reads_them(name: str, tmp_path: Path) -> None:
    layers = [GNU_SPARSE[name] + END]
    ours = _published(layers, tmp_path)
    _same(ours, expected(tree_of_stream(layers[0]) | {ROOT: ours[ROOT]}))


@pytest.mark.parametrize("entry", [directory("./", 0o1750, uid=5, gid=6, mtime=5), directory("/", 0o711)])
def test_the_root_directory_is_umocis(entry: Entry, tmp_path: Path) -> None:
    _is_umocis([tar([entry, file("a")])], tmp_path)


@pytest.mark.parametrize("name", [*_WITH_APPTAINER, *ONLY_APPTAINERS])
def test_the_tree_is_apptainers(name: str, tmp_path: Path) -> None:
    if not _ROOT and name in _FOR_ROOT:
        pytest.skip(f"NOT TESTED: {name}; an ordinary user's Apptainer keeps none of it")
    layers = [tar(layer) for layer in (STACKS | ONLY_APPTAINERS)[name]]
    theirs = apptainers_tree(layout(layers, tmp_path), tmp_path)
    assert theirs is not None
    _is_apptainers(_published(layers, tmp_path), theirs)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None)
@given(stacks())
def test_random_stacks_make_umocis_tree(stack: Stack) -> None:
    layers = [tar(layer) for layer in stack]
    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        theirs = umoci_unpack(layers, where)
        if theirs is None:
            _is_apptainers_or_refused(layers, where)
        else:
            _same(_published(layers, where), expected(tree_on_disk(theirs)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None)
@given(stacks())
def test_random_stacks_make_apptainers_tree(stack: Stack) -> None:
    """Apptainer runs as an ordinary user, for safety; what only root can set is not compared."""
    layers = [tar(layer) for layer in stack]
    with tempfile.TemporaryDirectory() as made:
        _is_apptainers_or_refused(layers, Path(made))


def _unprivileged(node: Node) -> Node:
    return node._replace(uid=0, gid=0, mode=node.mode & ~0o6000)


_CONFIGS: dict[str, dict[str, object]] = {
    "everything": {
        "Env": ["PATH=/bin", "A=$HOME `id` \\ \"x\" 'y'", "B=1\n2", "no identifier=1", "C"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ['echo "$A"', "x\ny"],
        "Labels": {"a": '1\n"2"', "org.label-schema.build-date": "never"},
        "User": "somebody",
        "WorkingDir": "/work",
    },
    "nothing": {},
    "quotes and newlines": {
        "Env": ["Q=\"'`$(touch /tmp/planted)", "N=\n\n", "R=\r\t", "E=", "U=\N{SNOWMAN}\x01", 'X=";touch /tmp/planted;"'],
        "Cmd": ["sh", "-c", "'\"`$(touch /tmp/planted)`\n#", "", "\\", "!", "a\0b".replace("\0", "\x02")],
        "Labels": {'"': "'", "\n": "\n\n", "$(id)": "`id`", "": "nameless", "\N{SNOWMAN}": "\N{SNOWMAN} <&>"},
    },
    "only an entrypoint": {"Entrypoint": ["/bin/sh", "it's", 'a "b"\nc', "$x"]},
    "null fields": {"Env": None, "Cmd": None, "Entrypoint": None, "Labels": None},
    "lines that end a here-document": {"Cmd": ["EOF", "\nEOF\n", "fi\n", "}"], "Env": ["A=EOF\nEOF", "B=${B:-x}", "C=}"]},
}


@pytest.mark.parametrize("name", _CONFIGS)
def test_apptainers_metadata_differs_only_in_what_depends_on_the_run(name: str, tmp_path: Path) -> None:
    """Compare a full build by Apptainer with ours: ENV, ENTRYPOINT, CMD and labels; the image has some of the names already."""
    taken = [directory("tmp", 0o1777), symlink("home", "data"), file("singularity"), file(".singularity.d/env/99-mine.sh")]
    links = [directory("data"), symlink("var", "data"), directory("environment"), file("environment/own")]
    layers = [tar([*runnable(), *taken, *links])]
    asked = request(layers, tmp_path / "blobs", _CONFIGS[name])
    full = apptainers_tree(layout_of(asked, layers, tmp_path), tmp_path)
    assert full is not None
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    builder = LocalBuilder(tmp_path / "builds", find_squasher(), TestRunner("nobody", scratch), now=lambda: NOW)
    unpack(builder.build(asked, lambda *_: None).sif, tmp_path / "ours", deadline=60)
    ours = tree_on_disk(tmp_path / "ours")
    ours = {path: node for path, node in ours.items() if path not in (b"srv", b"cvmfs", CATALOG_MARK.encode())}
    full = {path: node for path, node in full.items() if path != b".singularity.d/env/99-mine.sh"}
    assert ours.keys() == full.keys()
    differing = {path for path in ours if (ours[path].kind, ours[path].content) != (full[path].kind, full[path].content)}
    assert differing == {b".singularity.d/Singularity", b".singularity.d/labels.json"}
    labels = [json.loads(tree[b".singularity.d/labels.json"].content) for tree in (ours, full)]
    changed = {key for key in labels[0] | labels[1] if labels[0].get(key) != labels[1].get(key)}
    prefix = "org.label-schema."
    told = ("build-date", "usage.apptainer.version", "usage.singularity.deffile.bootstrap", "usage.singularity.deffile.from")
    assert changed == {prefix + key for key in told}


def _is_umocis(layers: list[bytes], where: Path, made_by: Squasher | None = None) -> None:
    theirs = umoci_unpack(layers, where)
    assert theirs is not None
    _same(_published(layers, where, made_by), expected(tree_on_disk(theirs)))


def _is_apptainers_or_refused(layers: list[bytes], where: Path) -> None:
    where.chmod(0o755)
    (where / "user").mkdir()
    theirs = apptainers_tree(layout(layers, where / "user"), where, ORDINARY)
    if theirs is None:
        with pytest.raises(LayerError):
            squashed(layers, where)
    else:
        ours = _published(layers, where)
        _is_apptainers(ours, _places_made_anew(theirs, layers, where), _unprivileged)


def _places_made_anew(theirs: dict[bytes, Node], layers: list[bytes], where: Path) -> dict[bytes, Node]:
    """Apptainer gives a directory without an entry, if it took a file's place, the mode and time that the file had."""
    (where / "plan").mkdir()
    implied = flatten(indexed(layers, where / "plan")[1]).finish().implied_directories
    return theirs | {path: theirs[path]._replace(mode=0o755, mtime=ANY_TIME) for path in implied if path in theirs}


def _is_apptainers(ours: dict[bytes, Node], theirs: dict[bytes, Node], seen: Callable[[Node], Node] = lambda node: node) -> None:
    """Apptainer adds its own names; the root directory then has its time, which is not compared."""
    added = {path for path in theirs if path not in ours and path.split(b"/")[0] in _ADDED}
    tree = {path: node for path, node in theirs.items() if path not in added}
    ours, tree = ({path: seen(node) for path, node in one.items()} for one in (ours, tree))
    _same(ours, expected(tree) | {ROOT: ours[ROOT]})


def _published(layers: list[bytes], where: Path, made_by: Squasher | None = None) -> dict[bytes, Node]:
    sandbox = where / "published"
    unpack(squashed(layers, where, made_by), sandbox, deadline=60)
    before = sandbox.stat()
    (sandbox / CATALOG_MARK).unlink()
    os.utime(sandbox, ns=(before.st_mtime_ns, before.st_mtime_ns))
    return tree_on_disk(sandbox)


def _same(ours: dict[bytes, Node], theirs: dict[bytes, Node]) -> None:
    assert ours.keys() == theirs.keys()
    for path, node in theirs.items():
        assert same(_comparable(ours[path]), _comparable(node)), (path, ours[path], node)


def _comparable(node: Node) -> Node:
    """Remove what unsquashfs and umoci cannot set for an ordinary user, if one runs the tests."""
    return node if _ROOT else _unprivileged(node)
