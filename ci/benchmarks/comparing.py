"""Two file indexes compared, as one program that can be measured: ``python -m ci.benchmarks.comparing PATHS SCRATCH``.

Of the second, one file in two thousand is another than in the first. Prints a JSON object; seconds, and bytes of memory.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ci.benchmarks.ours import own_memory
from publisher.build import patch_clone
from publisher.fileindex.external_sort import by_path
from publisher.fileindex.format import FileIndexWriter, read_file_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.fileindex.format import IndexedFile

_CHANGED = 2000  # every so many


def main() -> None:
    """Write both, compare them, and tell about it."""
    count, scratch = int(sys.argv[1]), Path(sys.argv[2])
    before, after = scratch / "before.zst", scratch / "after.zst"
    _write(before, count, 0)
    _write(after, count, _CHANGED)
    start = time.perf_counter()
    patch = patch_clone.make_patch(partial(_lines, before), partial(_lines, after), ordered=partial(by_path, scratch=scratch))
    seconds = time.perf_counter() - start
    fresh = 0 if patch is None else len(patch.added)
    figures = {"seconds": seconds, "memory": own_memory(), "fresh": fresh, "changed": -(-count // _CHANGED)}
    sys.stdout.write(json.dumps(figures))


def _write(path: Path, count: int, changed: int) -> None:
    with path.open("wb") as out:
        files = FileIndexWriter(out)
        for number in range(count):
            other = b" other" if changed and number % changed == 0 else b""
            content = hashlib.sha256(b"%d%s" % (number, other)).digest()
            name = b"usr/lib/python3/dist-packages/package%d/module%d.py" % (number * 7919 % 1000, number)
            files.add(b"0", name, 0o644, 0, 0, 4096, 1_600_000_000, content)
        files.close()


def _lines(path: Path) -> Iterator[IndexedFile]:
    with path.open("rb") as file:
        yield from read_file_index(file)


if __name__ == "__main__":
    main()
