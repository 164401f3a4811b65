"""The trial image: a tiny fixed input whose SIF tells whether the programs of a machine give the same bytes as this host's.

Apptainer's version is in the labels of every image, and versions of mksquashfs and of its zstd may compress differently. So a job
makes this SIF before it fetches anything, and compares its digest with that of the publisher's host.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import oci
from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.build.testrun import TestOutcome, TestRunner
from publisher.layers.header import make_header
from publisher.layers.index import write_index

if TYPE_CHECKING:
    from publisher.build.squash.programs import Squasher
    from publisher.system.command import UnixAccount

_TIME = 1_700_000_000  # of all members
_BLOCK = 512  # bytes of a block of a tar archive
_LINES = 12_000  # of the file that has several blocks in the squashfs


class _Untested(TestRunner):
    """A test run that is left out: the trial image has no programs."""

    def __init__(self) -> None:
        """Take no account: nothing is run."""

    def test(self, sif: Path, *, architecture: str, has_shell: bool) -> TestOutcome:  # noqa: ARG002 - as the tester
        """Return that the image was not run."""
        return TestOutcome("structure", "trial")


def trial_digest(squasher: Squasher, scratch: Path, *, account: UnixAccount | None = None, enterable: Path | None = None) -> str:
    """Return the sha256 of the SIF that this machine makes of the trial image, 64 hex digits.

    If other images may be squashed by a program that makes another SIF, it is the sha256 of both digests.

    Args:
        squasher: makes the squashfs.
        scratch: an existing directory for temporary files.
        account: the account that Apptainer and unsquashfs run as (needs root), None for this process's.
        enterable: a directory for temporary files that the account can enter, None for ``scratch``.

    Raises:
        BuildError: Apptainer or mksquashfs failed.
        SpaceError, BrokenHostError: as :meth:`publisher.build.builder.Builder.build`.
    """
    with tempfile.TemporaryDirectory(prefix="trial-", dir=scratch) as directory:
        digests = []
        for number, one in enumerate((squasher, *squasher.others)):
            builds = Path(directory, f"builds-{number}")
            builder = LocalBuilder(builds, one, _Untested(), account=account, scratch=enterable)
            digests.append(builder.build(_request(Path(directory)), lambda *_: None).sha256)
    if len(set(digests)) == 1:
        return digests[0]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _request(directory: Path) -> BuildRequest:
    """Return the request to build the trial image, with its layer below a directory."""
    content = layer()
    blob, index = directory / "layer.tar", directory / "layer.index"
    blob.write_bytes(content)
    write_index(io.BytesIO(content).read, index)
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "created": "2020-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/bin:/bin", 'GREETING=it\'s a "trial"'],
                "Entrypoint": ["/bin/trial"],
                "Cmd": ["--help"],
                "Labels": {"org.opencontainers.image.title": "trial", "maintainer": "nobody"},
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
        }
    ).encode()
    descriptors = (
        oci.Descriptor(oci.OCI_CONFIG, _digest(config), len(config)),
        oci.Descriptor("", _digest(content), len(content)),
    )
    manifest = oci.ImageManifest(_digest(b"trial"), oci.OCI_MANIFEST, descriptors[0], (descriptors[1],))
    return BuildRequest("the trial image", oci.join(manifest, oci.parse_config(config)), (blob,), (index,))


def layer() -> bytes:
    """Return a tar archive with files of several blocks and of a fragment, links, and unusual owners and modes."""
    lines = b"".join(b"%d %s\n" % (number, hashlib.sha256(b"%d" % number).hexdigest().encode()) for number in range(_LINES))
    members = [
        _member(b"bin/", b"5", mode=0o755),
        _member(b"bin/trial", b"0", b"#!/bin/sh\n", mode=0o4755),
        _member(b"data/", b"5", mode=0o1777, uid=1000),
        _member(b"data/lines", b"0", lines, mode=0o644, uid=1000, gid=100),
        _member(b"data/zeros", b"0", bytes(300_000), mode=0o600),
        _member(b"data/one", b"2", mode=0o777, link=b"../bin/trial"),
        _member(b"data/two", b"1", mode=0o644, link=b"data/lines"),
    ]
    return b"".join(members) + bytes(2 * _BLOCK)


def _member(name: bytes, kind: bytes, content: bytes = b"", *, mode: int, uid: int = 0, gid: int = 0, link: bytes = b"") -> bytes:
    header = make_header(name, kind, mode=mode, uid=uid, gid=gid, size=len(content), mtime=_TIME, link=link)
    return header + content + bytes(-len(content) % _BLOCK)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
