"""Attacker: a SIF on the list. Each hostile one is refused with one message of its own, before anything of it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.fileindex.format import read_file_index
from publisher.layers.limits import LayerLimits
from publisher.sifs.structure import SifError
from tests.support.images import foreign_sif
from tests.support.images.foreign_sif import Part, partition, sif, squashfs
from tests.support.images.layers import Entry, directory, file, hardlink, symlink
from tests.support.images.runnable import runnable
from tests.support.publisher.local_builder import build, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.system

TREE = (directory("bin"), file("bin/aaaa", b"content"), symlink("bin/bbbb", "aaaa"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A squashfs that is sound."""
    return squashfs(tmp_path_factory.mktemp("squashfs"), TREE)


STRUCTURES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a web page": (lambda _: b"<html>404</html>" * 100, "it is not a SIF"),
    "an empty file": (lambda _: b"", "it is not a SIF"),
    "another version": (lambda one: sif(partition(one), version=b"02"), "unknown version"),
    "no descriptors": (lambda one: sif(partition(one), total=0), "damaged: 0 descriptors"),
    "a million descriptors": (lambda one: sif(partition(one), total=1 << 20), "damaged: 1048576 descriptors"),
    "cut in its data": (lambda one: sif(partition(one))[:-100], "truncated: its header says"),
    "cut in its table": (lambda one: sif(partition(one))[:5000], "truncated: its header says"),
    "a descriptor beyond the end": (lambda one: sif(partition(one)._replace(length=1 << 40)), "a descriptor has"),
    "a descriptor before the beginning": (lambda one: sif(partition(one)._replace(at=-5)), "a descriptor has"),
    "a partition over the table": (lambda one: sif(partition(one)._replace(at=4096)), "two of its parts overlap"),
    "parts that overlap": (
        lambda one: sif(Part(foreign_sif.LABELS, b"{}", at=foreign_sif.DATA + 10), partition(one)),
        "two of its parts overlap",
    ),
    "no partition": (lambda _: sif(Part(foreign_sif.DEFINITION, b"from: x")), "has 0 partitions"),
    "an overlay": (lambda one: sif(partition(one), partition(one, use=foreign_sif.OVERLAY)), "has 2 partitions"),
    "an ext3 file system": (lambda one: sif(partition(one, system=foreign_sif.EXT3)), "not a squashfs with the root file system"),
    "encrypted": (lambda one: sif(partition(one, system=foreign_sif.ENCRYPTED)), "is encrypted"),
    "an encrypted key": (lambda one: sif(partition(one), Part(foreign_sif.CRYPTO_MESSAGE, b"key")), "is encrypted"),
    "an OCI-SIF": (lambda _: sif(Part(foreign_sif.OCI_ROOT_INDEX, b"{}")), "is an OCI-SIF"),
    "another architecture": (
        lambda one: sif(partition(one, arch=b"04"), arch=b"04"),
        "is for arm64, but it is listed for linux/amd64",
    ),
    "two architectures": (lambda one: sif(partition(one, arch=b"04")), "contradicts itself"),
    "no squashfs": (lambda _: sif(partition(b"hello" * 100)), "has no squashfs"),
    "a squashfs of version 3": (lambda one: sif(partition(one[:28] + b"\3\0" + one[30:])), "of version 3"),
    "a squashfs that is cut": (lambda one: sif(partition(one[:200])), "its squashfs has"),
    "a million entries": (lambda one: sif(partition(one[:4] + (1 << 22).to_bytes(4, "little") + one[8:])), "has 4194304 entries"),
    "damaged tables": (lambda one: sif(partition(one[:96] + bytes(len(one) - 96))), "the files of the SIF cannot be read"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_sif_with_a_hostile_structure_is_refused(name: str, plain: bytes, shared_path: Path) -> None:
    make, problem = STRUCTURES[name]
    refused(foreign_sif.request(make(plain), shared_path), shared_path, SifError, problem)


NAMES: dict[str, tuple[tuple[Entry, ...], bytes, bytes, str]] = {
    "..": ((file("zz"),), b"zz", b"..", "cannot be read|leads out of its tree"),
    "a slash": ((file("zzz"),), b"zzz", b"z/z", "cannot be read|leads out of its tree"),
    "a line feed": ((file("zzz"),), b"zzz", b"z\nz", "a name, or a target of a link, with a line feed"),
    "a false line": ((symlink("link", "a\nzzzz D 1 755 0 0"),), b"", b"", "a target of a link, with a line feed"),
    "a false file": (
        (symlink("link", "a\n-rw-r--r-- 0/0 5 2026-11-29 18:27 squashfs-root/zzzz"),),
        b"",
        b"",
        "a target of a link, with a line feed",
    ),
    "a file in a name": (
        (file("a\n-rw-r--r-- 0/0 5 2026-11-29 18:27 squashfs-root/zzzz"),),
        b"",
        b"",
        "a name, or a target of a link, with a line feed",
    ),
    "a device node": ((Entry("char", "dev/zero"),), b"", b"", "a device node"),
    "a catalog": ((file("home/.cvmfscatalog"),), b"", b"", "names that CVMFS reserves"),
    "a whiteout": ((file("home/.wh.x"),), b"", b"", "names of whiteouts"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_sif_with_a_hostile_name_is_refused(name: str, shared_path: Path) -> None:
    entries, old, new, problem = NAMES[name]
    made = squashfs(shared_path, entries)
    assert made.count(old) == 1 or not old
    refused(
        foreign_sif.request(sif(partition(made.replace(old, new) if old else made)), shared_path), shared_path, SifError, problem
    )


def test_a_directory_within_itself_is_refused(shared_path: Path) -> None:
    made = squashfs(shared_path, (directory("outer"), directory("outer/inner")))
    outer, inner = made.rindex(b"outer") - 8, made.rindex(b"inner") - 8  # the inode's place, its number, kind, length of the name
    loop = made[:inner] + made[outer : outer + 2] + made[inner + 2 :]
    assert loop != made
    refused(foreign_sif.request(sif(partition(loop)), shared_path), shared_path, SifError, "cannot be read|too long or too deep")


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (LayerLimits(entries=3), "has 4 entries"),
        (LayerLimits(unpacked_size=6), "more than the"),
        (LayerLimits(path_length=7), "too long or too deep"),
        (LayerLimits(depth=1), "too long or too deep"),
        (LayerLimits(names_size=5), "names of more than 5 bytes"),
    ],
)
def test_the_limits_of_images_hold_for_sifs(limits: LayerLimits, problem: str, plain: bytes, shared_path: Path) -> None:
    refused(foreign_sif.request(sif(partition(plain)), shared_path), shared_path, SifError, problem, limits=limits)


def test_a_huge_sparse_file_is_refused_before_it_is_read(shared_path: Path) -> None:
    made = squashfs(shared_path, (file("zero", bytes(1 << 20)),))
    size = (1 << 20).to_bytes(4, "little")
    assert made.count(size) == 1, "the size in the file's inode"
    request = foreign_sif.request(sif(partition(made.replace(size, b"\xff\xff\xff\x7f"))), shared_path)
    refused(
        request, shared_path, SifError, "more than the 1.0 GiB|more than the 1.1 GB", limits=LayerLimits(unpacked_size=1 << 30)
    )


def test_a_sound_sif_is_published_byte_for_byte(shared_path: Path) -> None:
    """With what apptainer build puts beside the partition, and a shell behind two links."""
    tree = (
        *runnable(),
        *map(directory, ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp", "home")),
        symlink("usr/bin", "../bin"),
        hardlink("bin/dash2", "bin/dash"),
        symlink("x", "$(a)"),
        file("with space"),
    )
    content = sif(
        Part(foreign_sif.DEFINITION, b"bootstrap: docker\nfrom: x\n"),
        Part(foreign_sif.SIGNATURE, b"signed"),
        partition(squashfs(shared_path, tree, "-comp", "gzip")),
    )
    made = build(foreign_sif.request(content, shared_path), shared_path)
    assert made.sif.read_bytes() == content
    assert made.config == f"sha256:{made.sha256}"
    assert made.test == "ran"
    assert made.notes == {"source": "SIF for amd64", "links with $(, which clients of CVMFS expand": 1}
    with made.file_index.open("rb") as index:
        lines = {line.path: line for line in read_file_index(index)}
    assert lines[b"bin/dash2"].kind + lines[b"bin/dash"].kind in {"hf", "fh"}
    assert {b"with space", b"x", b"bin/sh"} <= set(lines)
    assert made.unpacked_size == sum(line.size for line in lines.values() if line.kind == "f")


def test_a_sif_without_a_shell_is_checked_for_its_structure_only(plain: bytes, shared_path: Path) -> None:
    assert build(foreign_sif.request(sif(partition(plain)), shared_path), shared_path).test == "structure"


def test_a_sif_that_changes_on_this_host_is_not_published(plain: bytes, shared_path: Path) -> None:
    request = foreign_sif.request(sif(partition(plain)), shared_path)
    with request.layers[0].open("ab") as fetched:
        fetched.write(b"more")
    refused(request, shared_path, SifError, "has changed on this host")
