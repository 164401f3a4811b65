"""Sandboxes from layers, with a stand-in for the test run; tests/system/build/test_layered.py compares them with SIFs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from publisher.build.metadata import MetadataSkeleton
from publisher.build.sandbox import layered
from publisher.build.sandbox.layered import LayeredSandbox
from publisher.build.sandbox.unpack import NO_SHIELD
from publisher.build.testrun import TestOutcome
from publisher.errors import BuildError, LayerError, RepositoryError
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.emit import ExtraEntry
from publisher.layers.flatten import flatten
from publisher.layers.limits import DEFAULT_LIMITS
from publisher.layers.listing import write_listing
from publisher.layers.survey import survey
from publisher.state.paths import CATALOG_MARK
from tests.support.images.layers import directory, file, hardlink, indexed, symlink, tar
from tests.support.images.tar_stream import NOW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUN = ExtraEntry(b".run", b"2", 0o777, link=b".singularity.d/run")


class StubRunner:
    """A test run that finds every image sound, and does what the image's code would."""

    def __init__(self) -> None:
        self.work: Any = lambda _: None

    def test(self, image: Path, **_: object) -> TestOutcome:
        self.work(image)
        return TestOutcome("structure", "a stand-in")


def sandbox(layers: Sequence[bytes], where: Path) -> LayeredSandbox:
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    totals = survey(plan, indexes, NOW)
    with (where / "files").open("wb") as out:
        files = FileIndexWriter(out)
        write_listing(files, plan, indexes, [RUN], totals.newest)
        files.close()
    skeleton, runner = MetadataSkeleton((RUN,), ()), StubRunner()
    made = (tuple(blobs), tuple(indexes), skeleton, totals, where / "files", DEFAULT_LIMITS)
    return LayeredSandbox(*made, runner, "amd64", has_shell=True)  # type: ignore[arg-type]  # a stand-in


LAYERS = [tar([directory("etc", 0o700), file("etc/motd", b"old"), file("etc/gone")]), tar([file("etc/motd", b"new", mode=0o600)])]
LINKS = [tar([file("a", b"shared"), hardlink("b", "a"), hardlink("c", "a"), symlink("l", "a"), hardlink("l2", "l")])]


@pytest.fixture(autouse=True)
def without_extra_mount_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file indexes of these tests have only the entry that they add."""
    monkeypatch.setattr(layered, "add_skeleton", lambda _, skeleton: list(skeleton.metadata))


def test_a_sandbox_is_what_its_file_index_says(tmp_path: Path) -> None:
    made = sandbox(LAYERS, tmp_path)
    made.unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    assert (tmp_path / "tree/etc/motd").read_bytes() == b"new"
    assert (tmp_path / "tree" / CATALOG_MARK).exists()
    assert made.check(tmp_path / "tree") == ("structure", "a stand-in")


def test_what_the_images_code_has_changed_is_found(tmp_path: Path) -> None:
    made = sandbox(LAYERS, tmp_path)
    made.unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    made.tester.work = lambda image: (image / "etc/motd").write_bytes(b"NEW")  # type: ignore[attr-defined]  # a stand-in
    with pytest.raises(BuildError, match="differs from its file index: 'etc/motd' has"):
        made.check(tmp_path / "tree")


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({b"a", b"b"}, {"a": b"shared", "b": b"shared"}),
        ({b"b", b"c"}, {"b": b"shared", "c": b"shared"}),
        ({b"l2"}, {"l2": b"a"}),
        ({b".run"}, {".run": b".singularity.d/run"}),
        ((), {}),
    ],
)
def test_a_part_has_nothing_else(wanted: set[bytes], there: dict[str, bytes], tmp_path: Path) -> None:
    made = sandbox(LINKS, tmp_path)
    made.extract_paths(tmp_path / "part", wanted, deadline=60, shield=NO_SHIELD)
    found = {
        path.name: str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in (tmp_path / "part").iterdir()
    }
    assert found == there


def test_layers_of_which_nothing_is_wanted_are_not_read(tmp_path: Path) -> None:
    made = sandbox(LAYERS, tmp_path)
    made.layers[0].unlink()
    made.layers[0].write_bytes(b"BZh: refused if it were looked at")
    made.extract_paths(tmp_path / "part", {b"etc/motd"}, deadline=60, shield=NO_SHIELD)
    assert (tmp_path / "part/etc/motd").read_bytes() == b"new"


@pytest.mark.parametrize(("damage", "kind"), [("cut", LayerError), ("gone", RepositoryError), ("program", RepositoryError)])
def test_a_failure_leaves_nothing(damage: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sandbox([tar([file("a", bytes(3 << 20))])], tmp_path)
    if damage == "cut":
        made.layers[0].write_bytes(made.layers[0].read_bytes()[: 2 << 20])
    elif damage == "gone":
        made.layers[0].unlink()
    else:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/tar").write_text("#!/bin/sh\necho 'tar: strange' >&2; exit 2\n")
        (tmp_path / "bin/tar").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    with pytest.raises(kind, match="strange" if damage == "program" else None):
        made.unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    assert not (tmp_path / "tree").exists()
