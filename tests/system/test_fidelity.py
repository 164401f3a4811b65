"""The published tree against what umoci, and Apptainer with it, makes of the same layers: every path, but for the tree policy.

The way to the tree compared is the whole one: index, flatten, emit, mksquashfs, unsquashfs.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from publisher.builders.local import LocalBuilder
from publisher.errors import LayerError
from publisher.sandbox import CATALOG, unpack
from publisher.squash import Mksquashfs
from publisher.testrun import TestRunner
from tests.support.engine import NOW, squashed
from tests.support.images import digest, request
from tests.support.layers import Node, directory, file, layout, symlink, tar, tree_of_stream, tree_on_disk, umoci_unpack
from tests.support.random_stacks import stacks
from tests.support.raw import END, GNU_SPARSE, ODD
from tests.support.runnable import runnable
from tests.support.stacks import STACKS, Stack

if TYPE_CHECKING:
    from publisher.builders import BuildRequest

pytestmark = pytest.mark.system

_ROOT = os.geteuid() == 0
_STARTED = int(time.time()) - 5
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_FOR_ROOT = ("set-user-ID, sticky, closed", "devices and reserved names")
_WITH_APPTAINER = (
    "whiteout before its replacement",
    "opaque marker last",
    "written through an absolute symlink",
    "target of a hard link replaced later",
    "hard link through a symlinked directory",
    "long targets",
    "names that are not UTF-8",
    "times",
)


@pytest.mark.parametrize("name", STACKS)
def test_the_tree_is_umocis(name: str, tmp_path: Path) -> None:
    if not _ROOT and name in _FOR_ROOT:
        pytest.skip(f"NOT TESTED: {name}; umoci and reading what it made take root")
    layers = [tar(layer) for layer in STACKS[name]]
    theirs = umoci_unpack(layers, tmp_path)
    assert theirs is not None
    _same(_published(layers, tmp_path), tree_on_disk(theirs))


@pytest.mark.parametrize("name", ODD)
def test_odd_members_are_read_as_umoci_reads_them(name: str, tmp_path: Path) -> None:
    layers = [ODD[name] + END]
    theirs = umoci_unpack(layers, tmp_path)
    assert theirs is not None
    _same(_published(layers, tmp_path), tree_on_disk(theirs))


@pytest.mark.parametrize("name", GNU_SPARSE)
def test_gnus_sparse_files_are_read_as_tarfile_reads_them(name: str, tmp_path: Path) -> None:
    layers = [GNU_SPARSE[name] + END]
    _same(_published(layers, tmp_path), tree_of_stream(layers[0]))


@pytest.mark.parametrize("name", _WITH_APPTAINER)
def test_the_tree_is_apptainers(name: str, tmp_path: Path) -> None:
    layers = [tar(layer) for layer in STACKS[name]]
    theirs = _apptainers(layout(layers, tmp_path), tmp_path)
    ours = _published(layers, tmp_path)
    tree = tree_on_disk(theirs)
    added = {path for path in tree if path not in ours}
    assert {path.split(b"/")[0] for path in added} <= {
        *(b".singularity.d", b".exec", b".run", b".shell", b".test", b"singularity", b"environment"),
        *(b"dev", b"etc", b"home", b"proc", b"root", b"sys", b"tmp", b"var"),
    }
    _same(ours, {path: node for path, node in tree.items() if path not in added})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None)
@given(stacks())
def test_random_stacks_make_umocis_tree(stack: Stack) -> None:
    layers = [tar(layer) for layer in stack]
    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        theirs = umoci_unpack(layers, where)
        if theirs is None:
            with pytest.raises(LayerError):
                squashed(layers, where)
        else:
            _same(_published(layers, where), tree_on_disk(theirs))


def test_what_apptainer_adds_differs_only_where_it_tells_of_the_run(tmp_path: Path) -> None:
    """A full build by Apptainer against ours: ENV, ENTRYPOINT, CMD and labels; the image has some of its names already."""
    config = {
        "Env": ["PATH=/bin", "A=$HOME `id` \\ \"x\" 'y'", "B=1\n2", "no identifier=1", "C"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ['echo "$A"', "x\ny"],
        "Labels": {"a": '1\n"2"', "org.label-schema.build-date": "never"},
        "User": "somebody",
        "WorkingDir": "/work",
    }
    taken = [directory("tmp", 0o1777), symlink("home", "data"), file("singularity"), file(".singularity.d/env/99-mine.sh")]
    links = [directory("data"), symlink("var", "data"), directory("environment"), file("environment/own")]
    layers = [tar([*runnable(), *taken, *links])]
    asked = request(layers, tmp_path / "blobs", config)
    theirs = _apptainers(_layout_of(asked, layers, tmp_path), tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    builder = LocalBuilder(tmp_path / "builds", Mksquashfs(), TestRunner("nobody", scratch), now=lambda: NOW)
    unpack(builder.build(asked, lambda *_: None).sif, tmp_path / "ours", deadline=60)
    ours, full = tree_on_disk(tmp_path / "ours"), tree_on_disk(theirs)
    ours = {path: node for path, node in ours.items() if path not in (b"srv", b"cvmfs", CATALOG.encode())}
    full = {path: node for path, node in full.items() if path != b".singularity.d/env/99-mine.sh"}
    assert ours.keys() == full.keys()
    differing = {path for path in ours if (ours[path][0], ours[path][5]) != (full[path][0], full[path][5])}
    assert differing == {b".singularity.d/Singularity", b".singularity.d/labels.json"}
    labels = [json.loads((root / ".singularity.d/labels.json").read_bytes()) for root in (tmp_path / "ours", theirs)]
    changed = {key for key in labels[0] | labels[1] if labels[0].get(key) != labels[1].get(key)}
    prefix = "org.label-schema."
    told = ("build-date", "usage.singularity.deffile.bootstrap", "usage.singularity.deffile.from")
    assert changed == {prefix + key for key in told}


def _layout_of(asked: BuildRequest, layers: list[bytes], where: Path) -> Path:
    """An OCI layout of an image with its own config."""
    made = layout(layers, where)
    blobs = made / "blobs" / "sha256"
    config = asked.image.config.raw
    manifest = json.loads((made / "index.json").read_bytes())["manifests"][0]
    content = json.loads((blobs / manifest["digest"].removeprefix("sha256:")).read_bytes())
    content["config"] |= {"digest": digest(config), "size": len(config)}
    raw = json.dumps(content).encode()
    for blob in (config, raw):
        (blobs / digest(blob).removeprefix("sha256:")).write_bytes(blob)
    described = {"schemaVersion": 2, "manifests": [manifest | {"digest": digest(raw), "size": len(raw)}]}
    (made / "index.json").write_text(json.dumps(described))
    return made


def _apptainers(image: Path, where: Path) -> Path:
    """The sandbox that Apptainer builds of an OCI layout."""
    sandbox = where / "sandbox"
    env = {"PATH": os.environ["PATH"], "HOME": str(where), "APPTAINER_TMPDIR": str(where)}
    argv = ["apptainer", "--quiet", "build", "--sandbox", "--disable-cache", str(sandbox), f"oci:{image}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=120, env=env)
    return sandbox


def _published(layers: list[bytes], where: Path) -> dict[bytes, Node]:
    sandbox = where / "published"
    unpack(squashed(layers, where), sandbox, deadline=60)
    (sandbox / CATALOG).unlink()
    return tree_on_disk(sandbox)


def _same(ours: dict[bytes, Node], theirs: dict[bytes, Node]) -> None:
    expected = {path: node for path, node in theirs.items() if not _dropped(path, node)}
    assert ours.keys() == expected.keys()
    for path, node in expected.items():
        assert _comparable(ours[path], made_up=_made_up(node)) == _comparable(node, made_up=_made_up(node)), path


def _dropped(path: bytes, node: Node) -> bool:
    """What the tree policy does not publish."""
    return node[0] in _DEVICES or any(part.startswith((b".cvmfs", b".wh.")) for part in path.split(b"/"))


def _made_up(node: Node) -> bool:
    """A directory that no entry describes has the time of the unpacking, and Apptainer's own idea of a mode."""
    mtime = node[4]
    assert isinstance(mtime, int)
    return mtime >= _STARTED


def _comparable(node: Node, *, made_up: bool) -> Node:
    kind, mode, uid, gid, mtime, content, names = node
    assert isinstance(mode, int)
    if kind != stat.S_IFLNK:
        mode |= 0o555 if kind == stat.S_IFDIR or mode & 0o111 else 0o444
    if not _ROOT:
        uid, gid, mode = 0, 0, mode & ~0o6000
    assert isinstance(mtime, int)
    if made_up:
        mtime, mode = 0, 0
    return (kind, mode, uid, gid, max(mtime, 0), content, names if kind == stat.S_IFREG else ())
