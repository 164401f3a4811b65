from __future__ import annotations

import json
import os
import pwd
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.build import metadata
from publisher.build.metadata import MetadataSkeleton, add_skeleton, make_skeleton
from publisher.errors import BrokenHostError, BuildError, PublisherError, SpaceError
from publisher.layers.emit import ExtraEntry
from publisher.layers.flatten import FlattenedTree, flatten
from publisher.system.command import UnixAccount
from tests.support.images.built_layers import image
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar
from tests.support.machine.small_disk import small_disk

if TYPE_CHECKING:
    from pathlib import Path

SKELETON = MetadataSkeleton(
    metadata=(
        ExtraEntry(b".run", b"2", 0o777, link=b".singularity.d/actions/run"),
        ExtraEntry(b".singularity.d", b"5", 0o755),
        ExtraEntry(b".singularity.d/runscript", b"0", 0o755, b"#!/bin/sh\n"),
        ExtraEntry(b"environment", b"2", 0o777, link=b".singularity.d/env/90-environment.sh"),
    ),
    mount_points=(
        ExtraEntry(b"etc", b"5", 0o755),
        ExtraEntry(b"etc/hosts", b"0", 0o644),
        ExtraEntry(b"home", b"5", 0o755),
        ExtraEntry(b"var", b"5", 0o755),
        ExtraEntry(b"var/tmp", b"5", 0o755),
    ),
)


def tree(entries: list[Entry], where: Path) -> FlattenedTree:
    return flatten(indexed([tar(entries)], where)[1])


def placed(entries: list[Entry], where: Path) -> list[bytes]:
    return [extra.name for extra in add_skeleton(tree(entries, where), SKELETON)]


OWN = [extra.name for extra in SKELETON.metadata]


def test_an_empty_image_gets_everything_parents_first(tmp_path: Path) -> None:
    everything = [*OWN, b"etc", b"etc/hosts", b"home", b"var", b"var/tmp", b"srv", b"cvmfs"]
    assert placed([], tmp_path) == everything


def test_existing_names_are_not_replaced(tmp_path: Path) -> None:
    entries = [
        directory("etc"),
        directory("etc/hosts"),
        file("home"),
        symlink("srv", "etc"),
        directory("cvmfs"),
        file("var/tmp/x"),
    ]
    assert placed(entries, tmp_path) == OWN


def test_mount_points_are_made_where_links_lead(tmp_path: Path) -> None:
    entries = [
        symlink("var", "data/var"),
        symlink("home", "/usr/home"),
        symlink("etc", "/etc.d"),
        directory("etc.d"),
        symlink("etc.d/hosts", "own"),
        file("etc.d/own"),
    ]
    assert placed(entries, tmp_path) == [*OWN, b"usr", b"usr/home", b"data", b"data/var", b"data/var/tmp", b"srv", b"cvmfs"]


@pytest.mark.parametrize("link", [None, "/etc.d"], ids=["in place", "behind a link"])
def test_what_a_build_host_left_in_etc_hosts_is_emptied_as_by_apptainer(tmp_path: Path, link: str | None) -> None:
    where = "etc" if link is None else "etc.d"
    entries = [directory(where), file(f"{where}/hosts", b"10.0.0.1 secret\n"), hardlink(f"{where}/kept", f"{where}/hosts")]
    flattened = tree([*entries, *([] if link is None else [symlink("etc", link)])], tmp_path)
    added = {extra.name: extra for extra in add_skeleton(flattened, SKELETON)}
    assert (added[f"{where}/hosts".encode()].content, added[f"{where}/hosts".encode()].mode) == (b"", 0o644)
    assert flattened.lookup(f"{where}/hosts".encode()) is None
    assert flattened.lookup(f"{where}/kept".encode()) == "file", "another name of it is the image's own"


def test_loops_and_links_to_reserved_names_get_no_mount_point(tmp_path: Path) -> None:
    entries = [symlink("etc", "etc"), symlink("home", ".cvmfscatalog"), symlink("var", "../../.wh.var"), symlink("srv", "srv")]
    assert placed(entries, tmp_path) == [*OWN, b"cvmfs"]


def test_the_images_own_metadata_is_replaced_and_its_other_names_stay(tmp_path: Path) -> None:
    entries = [
        directory(".singularity.d"),
        file(".singularity.d/env/99-own.sh"),
        directory("environment"),
        symlink(".run", "gone"),
    ]
    flattened = tree(entries, tmp_path)
    assert [extra.name for extra in add_skeleton(flattened, SKELETON)][:2] == [b".singularity.d", b".singularity.d/runscript"]
    assert [list(actions) for actions in flattened.finish().actions] == [[0, 0, 1, 1]]


@pytest.mark.system
def test_what_apptainer_adds_has_no_trace_of_when_and_where(tmp_path: Path) -> None:
    asked = image([], {"Env": ["A=1"], "Labels": {"a": "b"}}, "arm64")
    skeletons = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        (tmp_path / name).mkdir()
        before = os.umask(umask)
        try:
            skeletons.append(make_skeleton(asked, tmp_path / name))
        finally:
            os.umask(before)
        assert list((tmp_path / name).iterdir()) == []
    assert skeletons[0] == skeletons[1]
    own = {extra.name: extra for extra in skeletons[0].metadata}
    assert json.loads(own[b".singularity.d/labels.json"].content) == {
        "a": "b",
        "org.label-schema.build-arch": "arm64",
        "org.label-schema.build-date": "2020-02-02T02:02:02Z",
        "org.label-schema.schema-version": "1.0",
        "org.label-schema.usage.singularity.deffile.bootstrap": "docker",
        "org.label-schema.usage.singularity.deffile.from": asked.content,
    }
    assert own[b".singularity.d/Singularity"].content == f"bootstrap: docker\nfrom: {asked.content}\n".encode()
    assert str(tmp_path).encode() not in b"".join(extra.content for extra in skeletons[0].metadata)
    assert {extra.mode for extra in (*skeletons[0].metadata, *skeletons[0].mount_points)} == {0o755, 0o644, 0o777}
    assert {b"etc/hosts", b"etc/resolv.conf", b"tmp", b"var/tmp", b"proc"} <= {extra.name for extra in skeletons[0].mount_points}


NEWER = """#!/bin/sh
{real} "$@" || exit
for word; do case $word in */sandbox) labels=$word/.singularity.d/labels.json ;; esac; done
for label in org.opencontainers.image.created org.opencontainers.image.architecture org.label-schema.usage.apptainer.version; do
    sed -i "\\$ s/}}\\$/,\\"$label\\": \\"$(date +%s%N)\\"}}/" "$labels"
done
"""
"""Apptainer 1.6, as far as labels go: time and architecture of the build, in place of the values of the image."""


@pytest.mark.system
@pytest.mark.parametrize(
    "labels", [{}, {"org.opencontainers.image.created": "2020-01-01", "org.opencontainers.image.architecture": "of the image"}]
)
def test_what_newer_versions_write_about_their_run_gives_no_other_bytes(
    labels: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = image([], {"Labels": {"a": "b", **labels}})
    before = make_skeleton(asked, tmp_path)
    (tmp_path / "apptainer").write_text(NEWER.format(real=shutil.which("apptainer")))
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert make_skeleton(asked, tmp_path) == before
    (written,) = (json.loads(extra.content) for extra in before.metadata if extra.name == b".singularity.d/labels.json")
    assert {key: value for key, value in written.items() if key.startswith("org.opencontainers.")} == labels
    assert "org.label-schema.usage.apptainer.version" not in written


@pytest.mark.system
def test_another_account_makes_the_same_skeleton(shared_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: Apptainer's build by another account; only root starts it")
    asked, entry = image([], {"Env": ["A=1"]}), pwd.getpwnam("nobody")
    before = os.umask(0o077)
    try:
        by_account = make_skeleton(asked, shared_path, UnixAccount(entry.pw_uid, entry.pw_gid))
    finally:
        os.umask(before)
    assert by_account == make_skeleton(asked, shared_path)
    assert list(shared_path.iterdir()) == []


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlived Apptainer puts it there just after the file was looked at."""
    (tmp_path / "secret").write_text("key")
    (tmp_path / "sandbox").mkdir()
    file_ = tmp_path / "sandbox/file"
    file_.touch()
    look = os.lstat

    def swapped(name: str, *, dir_fd: int | None = None) -> os.stat_result:
        status = look(name, dir_fd=dir_fd)
        file_.unlink()
        file_.symlink_to(tmp_path / "secret")
        return status

    monkeypatch.setattr(os, "lstat", swapped)
    descriptor = os.open(tmp_path / "sandbox", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="symbolic links"):
            list(metadata._read_entries(descriptor))
    finally:
        os.close(descriptor)


@pytest.mark.system
def test_an_image_of_unknown_age_has_no_date(tmp_path: Path) -> None:
    asked = image([])
    undated = json.dumps(json.loads(asked.config.raw) | {"created": None}).encode()
    skeleton = make_skeleton(replace(asked, config=replace(asked.config, raw=undated)), tmp_path)
    (labels,) = (extra.content for extra in skeleton.metadata if extra.name == b".singularity.d/labels.json")
    assert b"build-date" not in labels


@pytest.mark.system
@pytest.mark.parametrize("config", [{"Env": "A=1"}, {"Entrypoint": {"a": 1}}, {"Labels": ["a"]}])
def test_an_invalid_config_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="does not accept the image's config: apptainer failed"):
        make_skeleton(image([], config), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "error", "hint"),
    [
        ("FATAL: while writing: write /x: input/output error", BrokenHostError, "look at the disks"),
        ("FATAL: while unpacking: mkdir /x: read-only file system", BrokenHostError, "look at the disks"),
        ("FATAL: while writing: write /x: no space left on device", SpaceError, "free space in --state"),
        ("FATAL: while writing: write /x: disk quota exceeded", SpaceError, "free space in --state"),
        ("FATAL: no such entry point", BuildError, "correct the config"),
    ],
)
def test_a_failure_of_apptainer_says_whose_it_is_and_what_to_do(
    said: str, error: type[PublisherError], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apptainer writes what Go's standard library calls the errors."""
    (tmp_path / "apptainer").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(error) as failed:
        make_skeleton(image([]), tmp_path)
    assert type(failed.value) is error
    assert hint in str(failed.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["apptainer"]


@pytest.mark.system
def test_a_disk_that_is_full_for_apptainer_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", "size=64k", "Apptainer's metadata build on a full disk") as full:
        with pytest.raises(SpaceError, match="no space left for Apptainer's temporary files"):
            make_skeleton(image([]), full)
        assert list(full.iterdir()) == []
