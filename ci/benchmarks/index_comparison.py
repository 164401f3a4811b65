"""The comparison of two file indexes, as a program to measure: ``python -m ci.benchmarks.index_comparison PATHS SCRATCH``.

One file in two thousand differs between the two. It prints a JSON object; times are in seconds, memory is in bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.publisher_build import own_memory
from publisher.build.sandbox import patch_clone
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import FileIndexWriter, read_raw_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHANGED = 2000  # one file in that many is changed


def main() -> None:
    """Write both indexes, compare them and print the figures."""
    count, scratch = int(sys.argv[1]), Path(sys.argv[2])
    before, after = scratch / "before.zst", scratch / "after.zst"
    _write(before, count, 0)
    _write(after, count, _CHANGED)
    start = time.perf_counter()
    patch = patch_clone.make_patch(partial(_lines, before), partial(_lines, after), ordered=partial(by_path, scratch=scratch))
    seconds = time.perf_counter() - start
    added = 0 if patch is None else len(patch.added)
    figures = {"seconds": seconds, "memory": own_memory(), "added": added, "changed": -(-count // _CHANGED)}
    sys.stdout.write(json.dumps(figures))


def _write(path: Path, count: int, changed: int) -> None:
    with path.open("wb") as out:
        files = FileIndexWriter(out)
        for number in range(count):
            suffix = b" other" if changed and number % changed == 0 else b""
            content = hashlib.sha256(b"%d%s" % (number, suffix)).digest()
            name = b"usr/lib/python3/dist-packages/package%d/module%d.py" % (number * 7919 % 1000, number)
            files.add(b"0", name, 0o644, 0, 0, 4096, 1_600_000_000, content)
        files.close()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from read_raw_lines(file)


if __name__ == "__main__":
    main()
