"""An image of a million entries: the memory of this program and of mksquashfs stays within its limits."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import zstandard

from publisher.layers.header import make_header
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

DIRECTORIES, FILES = 1000, 1000
MEMORY = 300 << 20  # bytes, of this program at any size (docs/design.md)
SQUASH_MEMORY = (128 + 64 << 20) + 1024 * DIRECTORIES * FILES  # -mem, code and buffers, and 0.7 KiB an entry were measured

BUILD = """
import json, resource, sys
from pathlib import Path
from publisher.build.builder import BuildRequest
from publisher.build.local import LocalBuilder
from publisher.layers.index import write_index
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from publisher.build.squash import Mksquashfs
from publisher.build.testrun import TestRunner

where = Path(sys.argv[1])
layer, index = where / "layer", where / "layer.index"
with layer.open("rb") as file:
    summary = write_index(file.read, index)
described = Descriptor("", "sha256:" + "1" * 64, layer.stat().st_size)
manifest = ImageManifest("sha256:" + "2" * 64, "", described, (described,))
raw = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [summary.diff_id]}}).encode()
image = Image(manifest, ImageConfig(Platform("linux", "amd64"), (summary.diff_id,), raw))
request = BuildRequest("test/large:1", image, (layer,), (index,))
(where / "scratch").mkdir()
built = LocalBuilder(where / "builds", Mksquashfs(), TestRunner("image-test", where / "scratch")).build(request, lambda *_: None)
own = next(int(line.split()[1]) << 10 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
print(json.dumps({"own": own, "children": children, "files": built.files, "test": built.test}))
"""


def write_layer(path: Path) -> None:
    """Write a compressed layer of a thousand directories with a thousand files each, with different contents."""
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1).stream_writer(file) as out:
        for directory in range(DIRECTORIES):
            name = b"d%04d" % directory
            out.write(make_header(name, b"5", mode=0o755, mtime=1_600_000_000))
            for number in range(FILES):
                content = b"%04d %04d" % (directory, number)
                header = make_header(b"%s/f%04d" % (name, number), b"0", mode=0o644, size=len(content), mtime=1_600_000_000)
                out.write(header + content.ljust(512, b"\0"))
        out.write(bytes(1024))


@pytest.mark.timeout(600)
def test_a_million_entries_fit_into_memory(shared_path: Path) -> None:
    write_layer(shared_path / "layer")
    argv = [sys.executable, "-c", BUILD, str(shared_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] > DIRECTORIES * FILES
    assert said["test"] == "structure"
    assert said["own"] < MEMORY
    assert said["children"] < SQUASH_MEMORY
