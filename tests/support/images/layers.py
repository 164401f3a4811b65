"""Layers made entry by entry, OCI layouts of them, and the trees that umoci unpacks from them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from publisher.layers.index import write_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


@dataclass(frozen=True)
class Entry:
    """One tar entry; ``kind`` is a key of TYPES."""

    kind: str
    name: str
    content: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    uname: str = ""
    gname: str = ""
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, content: bytes = b"x", **more: object) -> Entry:
    return Entry("file", name, content, **more)  # type: ignore[arg-type]  # the fields of Entry


def directory(name: str, mode: int = 0o755, **more: object) -> Entry:
    return Entry("dir", name, mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: str, target: str, **more: object) -> Entry:
    return Entry("symlink", name, link=target, mode=0o777, **more)  # type: ignore[arg-type]


def hardlink(name: str, target: str, **more: object) -> Entry:
    return Entry("hardlink", name, link=target, **more)  # type: ignore[arg-type]


def tar(entries: Iterable[Entry], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return the entries as an uncompressed archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format, errors="surrogateescape") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type = TYPES[entry.kind]
            info.linkname = entry.link
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
            info.uname, info.gname = entry.uname, entry.gname
            info.size = len(entry.content)
            info.pax_headers = entry.pax
            archive.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def indexed(layers: Sequence[bytes], where: Path) -> tuple[list[Path], list[Path]]:
    """Write layers (compressed or not) and their header indexes to ``where``; return the blobs and the indexes."""
    blobs, indexes = [], []
    for number, layer in enumerate(layers):
        blob = where / f"layer-{number}"
        blob.write_bytes(layer)
        index = where / f"layer-{number}.index"
        write_index(io.BytesIO(layer).read, index)
        blobs.append(blob)
        indexes.append(index)
    return blobs, indexes


def layout(layers: Sequence[bytes], where: Path) -> Path:
    """Write an OCI layout with an image of uncompressed layers, tagged ``it``, and return its path."""
    blobs = where / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(content)}

    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode(), "config.v1+json")
    listed = [put(layer, "layer.v1.tar") for layer in layers]
    manifest = put(json.dumps({"schemaVersion": 2, "config": config, "layers": listed}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (where / "layout" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (where / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    return where / "layout"


def umoci_unpack(layers: Sequence[bytes], where: Path) -> Path | None:
    """Return the root file system that umoci unpacks from layers, None if it refuses them."""
    image = layout(layers, where)
    bundle = where / "bundle"
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    argv = ["umoci", "unpack", *rootless, "--image", f"{image}:it", str(bundle)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=120)
    return bundle / "rootfs" if done.returncode == 0 else None


class Node(NamedTuple):
    """A file, directory or link at a path.

    Attributes:
        kind: as ``stat.S_IFMT`` gives it.
        content: bytes of a file, target of a symbolic link.
        attributes: extended ones, by name.
        names: all names of its inode.
    """

    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes
    attributes: tuple[tuple[str, bytes], ...] = ()
    names: tuple[bytes, ...] = ()


def tree_on_disk(root: Path) -> dict[bytes, Node]:
    """Return everything below ``root``, and ``root`` itself as ``.``."""
    found: dict[bytes, Node] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    base = os.fsencode(root)
    found[b"."] = _node(base, os.lstat(base))._replace(names=(b".",))
    for parent, directories, files in os.walk(base):
        for name in directories + files:
            path = os.path.join(parent, name)  # noqa: PTH118 - paths that are bytes
            relative = os.path.relpath(path, base)
            status = os.lstat(path)
            inodes.setdefault((status.st_dev, status.st_ino), []).append(relative)
            found[relative] = _node(path, status)
    for names in inodes.values():
        for name in names:
            found[name] = found[name]._replace(names=tuple(sorted(names)))
    return found


def _node(path: bytes, status: os.stat_result) -> Node:
    content = b""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as opened:  # noqa: PTH123 - likewise
            content = opened.read()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)  # noqa: PTH115 - likewise
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    return Node(kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns // 10**9, content, attributes(path))


def attributes(path: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes, except this host's SELinux labels."""
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux")
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def tree_of_stream(stream: bytes) -> dict[bytes, Node]:
    """Return the tree of an archive that has every path once and every parent, without attributes."""
    kinds = {b"0": stat.S_IFREG, b"S": stat.S_IFREG, b"2": stat.S_IFLNK, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}
    found: dict[bytes, Node] = {}
    names: dict[bytes, list[bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as archive:
        for info in archive:
            path = os.fsencode(info.name).removeprefix(b"./")
            assert path not in found, path
            if info.type == tarfile.LNKTYPE:
                target = os.fsencode(info.linkname).removeprefix(b"./")
                found[path] = found[target]
                names[target].append(path)
                names[path] = names[target]
                continue
            names[path] = [path]
            content = b""
            if info.isreg():
                opened = archive.extractfile(info)
                assert opened is not None
                content = opened.read()
            elif info.issym():
                content = os.fsencode(info.linkname)
            found[path] = Node(kinds[info.type], info.mode, info.uid, info.gid, int(info.mtime), content)
    return {path: node._replace(names=tuple(sorted(names[path]))) for path, node in found.items()}
