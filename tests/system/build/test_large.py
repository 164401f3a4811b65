"""An image of very many entries: this program and mksquashfs stay within the memory that they may take for each.

The own squasher takes images of up to 200,000 entries, and more memory for each; mksquashfs takes larger ones.

There are 200,000 entries; with OSPOOL_EVERY_POINT=1 a million, which takes five times as long. A limit falls with the number of
entries, so that whatever takes too much for a million, for each entry or once, takes too much here as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from publisher.build.squash import own_squasher
from publisher.layers.header import make_header
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

DIRECTORIES, FILES = 1000 if "OSPOOL_EVERY_POINT" in os.environ else 200, 1000
MEMORY = (48 << 20) + 264 * DIRECTORIES * FILES
"""Bytes of this program: 300 MiB for a million (docs/design.md); 48 MiB and 45 bytes an entry were measured."""
OWN_FILES, OWN_MEMORY = 190_000, 200 << 20
"""Bytes of this program where it squashes itself: 300 MiB, less what the contents of an earlier SIF may take."""
SQUASH_MEMORY = (10 << 20) + 1215 * DIRECTORIES * FILES
"""Bytes of mksquashfs: -mem, code and buffers, and 1 KiB an entry for a million; 20 MiB and 720 bytes an entry were measured."""
DEADLINE = 0.0005 * DIRECTORIES * FILES
"""Seconds of a build, on a busy machine."""

BUILD = """
import json, resource, sys
from pathlib import Path
from publisher.build.squash import own_squasher
from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.layers.index import write_index
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner

where, own_squasher._MAX_ENTRIES = Path(sys.argv[1]), int(sys.argv[2])
layer, index = where / "layer", where / "layer.index"
with layer.open("rb") as file:
    summary = write_index(file.read, index)
described = Descriptor("", "sha256:" + "1" * 64, layer.stat().st_size)
manifest = ImageManifest("sha256:" + "2" * 64, "", described, (described,))
raw = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [summary.diff_id]}}).encode()
image = Image(manifest, ImageConfig(Platform("linux", "amd64"), (summary.diff_id,), raw))
request = BuildRequest("test/large:1", image, (layer,), (index,))
(where / "scratch").mkdir()
tester = TestRunner("image-test", where / "scratch")
built = LocalBuilder(where / "builds", find_squasher(), tester).build(request, lambda *_: None)
own = next(int(line.split()[1]) << 10 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
print(json.dumps({"own": own, "children": children, "files": built.files, "test": built.test, "tools": built.tools}))
"""


def write_layer(path: Path, directories: int) -> None:
    """Write a compressed layer of directories with a thousand files each, with different contents."""
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as out:
        for directory in range(directories):
            name = b"d%04d" % directory
            out.write(make_header(name, b"5", mode=0o755, mtime=1_600_000_000))
            for number in range(FILES):
                content = b"%04d %04d" % (directory, number)
                header = make_header(b"%s/f%04d" % (name, number), b"0", mode=0o644, size=len(content), mtime=1_600_000_000)
                out.write(header + content.ljust(512, b"\0"))
        out.write(bytes(1024))


def built(where: Path, directories: int, limit: int) -> dict[str, Any]:
    """Build an image, of which the own squasher takes up to ``limit`` entries; return what the process says."""
    write_layer(where / "layer", directories)
    argv = [sys.executable, "-c", BUILD, str(where), str(limit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["files"] > directories * FILES
    assert said["test"] == "structure"
    return said


@pytest.mark.timeout(600)
def test_hundreds_of_thousands_of_entries_fit_into_memory(shared_path: Path) -> None:
    said = built(shared_path, DIRECTORIES, own_squasher._MAX_ENTRIES)
    assert "mksquashfs" in said["tools"]
    assert said["own"] < MEMORY
    assert said["children"] < SQUASH_MEMORY


@pytest.mark.timeout(600)
def test_the_entries_of_the_own_squasher_fit_into_memory(shared_path: Path) -> None:
    said = built(shared_path, OWN_FILES // FILES, own_squasher._MAX_ENTRIES)
    assert "mksquashfs" not in said["tools"]
    assert said["own"] < OWN_MEMORY
