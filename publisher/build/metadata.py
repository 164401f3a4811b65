"""What Apptainer adds to an image, made by Apptainer itself: ``.singularity.d``, its links, and mount points.

Apptainer builds a sandbox from the image's real config and one empty layer; that takes a tenth of a second, needs no root,
and gives the same ENV, ENTRYPOINT, CMD and labels as a build of the whole image. What it writes about its own run (the date,
the path of the layout, this host's architecture) is replaced by what is true of the image, so that a build leaves no trace
of where and when it happened.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import BuildError, CommandError, SpaceError
from publisher.layers.emit import ExtraEntry
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from publisher.layers.flatten import FlattenedTree
    from publisher.oci import Image

_EMPTY_LAYER = bytes(1024)  # an archive without entries
_DIRECTORY = b".singularity.d"
_OWN = (_DIRECTORY, b".exec", b".run", b".shell", b".test", b"singularity", b"environment")
_ALSO = (ExtraEntry(b"srv", b"5", 0o755), ExtraEntry(b"cvmfs", b"5", 0o755))  # mount points that sites bind
_LABELS = b".singularity.d/labels.json"
_RECIPE = b".singularity.d/Singularity"
_DEADLINE = 120  # seconds; it takes a tenth of one
_PREFIX = "org.label-schema."


@dataclass(frozen=True)
class MetadataSkeleton:
    """What Apptainer adds, parents first.

    ``own`` is ``.singularity.d``, which replaces the image's, and the links that lead there; those and the ``mount_points`` fill
    gaps, for a file or directory of such a name (``/environment``) is the image's.
    """

    own: tuple[ExtraEntry, ...]
    mount_points: tuple[ExtraEntry, ...]


def make_skeleton(image: Image, scratch: Path) -> MetadataSkeleton:
    """Ask Apptainer what it adds to an image.

    Args:
        image: the image; its config's bytes are handed on unchanged but for the list of layers.
        scratch: an existing directory for temporary files.

    Raises:
        BuildError: Apptainer does not take the config.
        SpaceError: no room left in ``scratch``.
    """
    with tempfile.TemporaryDirectory(prefix="skeleton-", dir=scratch) as made:
        where = Path(made)
        _write_layout(image.config.raw, where / "layout")
        _build(where)
        return _read(where / "sandbox", image)


def place(tree: FlattenedTree, skeleton: MetadataSkeleton) -> list[ExtraEntry]:
    """The entries to add to a flattened tree, parents first; makes room for them in the tree."""
    tree.remove(_DIRECTORY)
    placed = {extra.name: extra for extra in skeleton.own if _below(extra.name) or not tree.is_occupied(extra.name)}
    for extra in (*skeleton.mount_points, *_ALSO):
        spot = tree.destination(extra.name)
        if spot is None or spot in placed or tree.lookup(spot) is not None:
            continue
        for parent in _parents(spot):
            if parent not in placed and tree.lookup(parent) is None:
                placed[parent] = ExtraEntry(parent, b"5", 0o755)
        placed[spot] = ExtraEntry(spot, extra.kind, extra.mode, extra.content, extra.link)
    return list(placed.values())


def _below(name: bytes) -> bool:
    return name.split(b"/")[0] == _DIRECTORY


def _parents(path: bytes) -> Iterator[bytes]:
    parts = path.split(b"/")[:-1]
    for end in range(1, len(parts) + 1):
        yield b"/".join(parts[:end])


def _write_layout(raw: bytes, layout: Path) -> None:
    """An OCI layout (image layout specification 1.0) of the config and one empty layer."""
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


def _build(where: Path) -> None:
    env = {"HOME": str(where), "APPTAINER_CONFIGDIR": f"{where}/config", "APPTAINER_CACHEDIR": f"{where}/cache"}
    env |= {"APPTAINER_TMPDIR": str(where), "TMPDIR": str(where)}
    argv = ["apptainer", "--quiet", "build", "--sandbox", "--disable-cache", str(where / "sandbox"), f"oci:{where}/layout"]
    try:
        command.run(argv, deadline=_DEADLINE, env=env, cwd=where)
    except CommandError as error:
        if "no space left" in error.stderr.lower():
            raise SpaceError("no room left for Apptainer's temporary files", hint="free space in --state") from error
        raise BuildError(f"Apptainer does not take the image's config: {error.reason}", hint=error.hint) from error


def _read(sandbox: Path, image: Image) -> MetadataSkeleton:
    own: list[ExtraEntry] = []
    mount_points: list[ExtraEntry] = []
    for extra in _entries(sandbox):
        if extra.name == _LABELS:
            own.append(replace(extra, content=_true_labels(extra.content, image)))
        elif extra.name == _RECIPE:
            own.append(replace(extra, content=f"bootstrap: docker\nfrom: {image.manifest.digest}\n".encode()))
        elif extra.name.split(b"/")[0] in _OWN:
            own.append(extra)
        else:
            mount_points.append(extra)
    if not own:
        raise BuildError("Apptainer made a sandbox without .singularity.d")
    return MetadataSkeleton(tuple(own), tuple(mount_points))


def _entries(root: Path, prefix: bytes = b"") -> Iterator[ExtraEntry]:
    """All below ``root``, parents first, in a fixed order and with modes that do not depend on this run's umask."""
    for path in sorted(root.iterdir()):
        name = prefix + os.fsencode(path.name)
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield ExtraEntry(name, b"2", 0o777, link=os.fsencode(path.readlink()))
        elif stat.S_ISDIR(mode):
            yield ExtraEntry(name, b"5", 0o755)
            yield from _entries(path, name + b"/")
        elif stat.S_ISREG(mode):
            yield ExtraEntry(name, b"0", 0o755 if mode & 0o100 else 0o644, path.read_bytes())


def _true_labels(content: bytes, image: Image) -> bytes:
    """Apptainer's labels with what is true of the image in the place of what was true of the run.

    The image is named by its digest alone: one manifest is one SIF, whatever names lead to it.
    """
    labels = json.loads(content)
    created = json.loads(image.config.raw).get("created")
    true: Iterable[tuple[str, object]] = (
        (f"{_PREFIX}build-date", created),
        (f"{_PREFIX}build-arch", image.platform.architecture),
        (f"{_PREFIX}usage.singularity.deffile.from", image.manifest.digest),
        (f"{_PREFIX}usage.singularity.deffile.bootstrap", "docker"),
    )
    labels.pop(f"{_PREFIX}build-date", None)
    labels |= {key: value for key, value in true if isinstance(value, str)}
    return json.dumps(labels, indent="\t", sort_keys=True, ensure_ascii=False).encode()
