"""The files that Apptainer adds to an image, made by Apptainer itself: ``.singularity.d``, its links, and mount points.

Apptainer builds a sandbox from the image's real config and one empty layer. That takes a tenth of a second, needs no root, and
gives the same environment, entry point, command and labels as a build of the whole image. What Apptainer writes about its own
run (the date, the path of the layout, this host's architecture, its version) is replaced by the image's own values, so that the
result does not depend on where and when an image is built.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import BuildError, CommandError
from publisher.layers.emit import ExtraEntry
from publisher.system import command
from publisher.system.durable import program_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from publisher.layers.flatten import FlattenedTree
    from publisher.oci import Image
    from publisher.system.command import UnixAccount

_EMPTY_LAYER = bytes(1024)  # a tar archive without entries
_DIRECTORY = b".singularity.d"
_METADATA_NAMES = (_DIRECTORY, b".exec", b".run", b".shell", b".test", b"singularity", b"environment")
_EXTRA_MOUNT_POINTS = (ExtraEntry(b"srv", b"5", 0o755), ExtraEntry(b"cvmfs", b"5", 0o755))  # which sites bind
_EMPTIED = (b"etc/hosts", b"etc/resolv.conf")
"""Files that every container runtime replaces, so that an image has only what the host that made it left there."""
_LABELS = b".singularity.d/labels.json"
_RECIPE = b".singularity.d/Singularity"
_DEADLINE = 120  # seconds; normally it takes a tenth of a second
_PREFIX = "org.label-schema."
_LABELS_OF_THE_RUN = (
    f"{_PREFIX}build-date",
    f"{_PREFIX}build-arch",
    f"{_PREFIX}usage.apptainer.version",
    "org.opencontainers.image.architecture",  # this one and the next: Apptainer 1.6
    "org.opencontainers.image.created",
)
"""Labels that Apptainer sets or overwrites with what it knows of its own run."""


@dataclass(frozen=True)
class MetadataSkeleton:
    """The entries that Apptainer adds, parents first.

    Attributes:
        metadata: ``.singularity.d``, which replaces the image's own, and the links into it, which do not replace a file or
            directory of the image (such as ``/environment``).
        mount_points: files and directories that are added where the image has none.
    """

    metadata: tuple[ExtraEntry, ...]
    mount_points: tuple[ExtraEntry, ...]


def make_skeleton(image: Image, scratch: Path, account: UnixAccount | None = None) -> MetadataSkeleton:
    """Return the entries that Apptainer adds to an image.

    Args:
        image: the image; Apptainer gets its config with the list of layers replaced.
        scratch: an existing directory for temporary files.
        account: the account that Apptainer runs as (needs root), None for this process's; it can enter ``scratch``.

    Raises:
        BuildError: Apptainer does not accept the config.
        SpaceError: no space left in ``scratch``.
        BrokenHostError: the disk of ``scratch`` failed.
    """
    with tempfile.TemporaryDirectory(prefix="skeleton-", dir=scratch) as temporary:
        directory = Path(temporary)
        _write_layout(image.config.raw, directory / "layout")
        if account is not None:
            for path in (directory / "layout", *(directory / "layout").rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            os.chown(directory, account.uid, account.gid)
        _build_sandbox(directory, account)
        return _read_skeleton(directory / "sandbox", image)


def add_skeleton(tree: FlattenedTree, skeleton: MetadataSkeleton) -> list[ExtraEntry]:
    """Return the entries to add to a flattened tree, parents first.

    The image's own metadata is removed from the tree, and so are the files that Apptainer empties, where they are files.
    """
    tree.remove(_DIRECTORY)
    for name in _EMPTIED:
        tree.remove_file(name)
    added = {entry.name: entry for entry in skeleton.metadata if _is_below(entry.name) or not tree.is_occupied(entry.name)}
    for entry in (*skeleton.mount_points, *_EXTRA_MOUNT_POINTS):
        path = tree.destination(entry.name)
        if path is None or path in added or tree.lookup(path) is not None:
            continue
        for parent in _parents(path):
            if parent not in added and tree.lookup(parent) is None:
                added[parent] = ExtraEntry(parent, b"5", 0o755)
        added[path] = ExtraEntry(path, entry.kind, entry.mode, entry.content, entry.link)
    return list(added.values())


def _is_below(name: bytes) -> bool:
    return name.split(b"/")[0] == _DIRECTORY


def _parents(path: bytes) -> Iterator[bytes]:
    parts = path.split(b"/")[:-1]
    for end in range(1, len(parts) + 1):
        yield b"/".join(parts[:end])


def _write_layout(raw: bytes, layout: Path) -> None:
    """Write an OCI layout (image layout specification 1.0) with the config and one empty layer."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = gzip.compress(_EMPTY_LAYER, mtime=0)
    config = json.loads(raw)
    config["rootfs"] = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(_EMPTY_LAYER).hexdigest()]}
    config.pop("history", None)

    def put(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [put(layer, "layer.v1.tar+gzip")],
    }
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _build_sandbox(directory: Path, account: UnixAccount | None) -> None:
    env = {"HOME": str(directory), "APPTAINER_CONFIGDIR": f"{directory}/config", "APPTAINER_CACHEDIR": f"{directory}/cache"}
    env |= {"APPTAINER_TMPDIR": str(directory), "TMPDIR": str(directory), "SOURCE_DATE_EPOCH": "0"}
    argv = ["apptainer", "--quiet", "build", "--sandbox", "--disable-cache"]
    argv += [str(directory / "sandbox"), f"oci:{directory}/layout"]
    try:
        command.run(argv, deadline=_DEADLINE, env=env, cwd=directory, account=account)
    except CommandError as error:
        failure = program_failure(error, "Apptainer's temporary files")
        hint = error.hint or "correct the config of the image: its environment, entry point, command or labels"
        raise failure or BuildError(f"Apptainer does not accept the image's config: {error.reason}", hint=hint) from error


def _read_skeleton(sandbox: Path, image: Image) -> MetadataSkeleton:
    metadata: list[ExtraEntry] = []
    mount_points: list[ExtraEntry] = []
    with _opened(str(sandbox)) as directory:
        entries = list(_read_entries(directory))
    for entry in entries:
        if entry.name == _LABELS:
            metadata.append(replace(entry, content=_image_labels(entry.content, image)))
        elif entry.name == _RECIPE:
            metadata.append(replace(entry, content=f"bootstrap: docker\nfrom: {image.content}\n".encode()))
        elif entry.name.split(b"/")[0] in _METADATA_NAMES:
            metadata.append(entry)
        else:
            mount_points.append(entry)
    if not metadata:
        raise BuildError("Apptainer made a sandbox without .singularity.d")
    return MetadataSkeleton(tuple(metadata), tuple(mount_points))


def _read_entries(directory: int, prefix: bytes = b"") -> Iterator[ExtraEntry]:
    """Yield everything below an open directory, parents first, in a fixed order, with modes that do not depend on the umask.

    No link is followed, even if a process that outlived Apptainer puts one in place of a file: this process may read more files.
    """
    for name in sorted(os.listdir(directory)):
        path, mode = prefix + os.fsencode(name), os.lstat(name, dir_fd=directory).st_mode
        if stat.S_ISLNK(mode):
            yield ExtraEntry(path, b"2", 0o777, link=os.fsencode(os.readlink(name, dir_fd=directory)))
        elif stat.S_ISDIR(mode):
            yield ExtraEntry(path, b"5", 0o755)
            with _opened(name, directory) as descriptor:
                yield from _read_entries(descriptor, path + b"/")
        elif stat.S_ISREG(mode):
            with _opened(name, directory) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
                yield ExtraEntry(path, b"0", 0o755 if mode & 0o100 else 0o644, file.read())


@contextlib.contextmanager
def _opened(name: str, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _image_labels(content: bytes, image: Image) -> bytes:
    """Return Apptainer's labels with the values of the image in place of those of the run.

    The image is named by the digest of its config only: one content gives one SIF, whatever names and manifests refer to it.
    """
    labels, config = json.loads(content), json.loads(image.config.raw)
    own = (config.get("config") or {}).get("Labels") or {}
    values: Iterable[tuple[str, object]] = (
        *((key, own.get(key)) for key in _LABELS_OF_THE_RUN),
        (f"{_PREFIX}build-date", config.get("created")),
        (f"{_PREFIX}build-arch", image.platform.architecture),
        (f"{_PREFIX}usage.singularity.deffile.from", image.content),
        (f"{_PREFIX}usage.singularity.deffile.bootstrap", "docker"),
    )
    for key in _LABELS_OF_THE_RUN:
        labels.pop(key, None)
    labels |= {key: value for key, value in values if isinstance(value, str)}
    return json.dumps(labels, indent="\t", sort_keys=True, ensure_ascii=False).encode()
