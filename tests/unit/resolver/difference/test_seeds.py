"""The choice among very large and very many seeds: what it takes in memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BAR = 64 << 20  # bytes
PROGRAM = """
import array, os, sys
sys.path.insert(0, sys.argv[1])
import ssl, http.client, urllib.request  # as in a fetch
from publisher.contract.chunk_table import ChunkTable, serialize
from publisher.resolver.difference.seeds import Seed, prepare

CHUNKS, LENGTH, SEEDS = 80_000, 64 << 10, 12

class Cached(Seed):
    def open(self):
        opened.append(self.sha256)
        return 0

def table(sha256, digests):
    lengths = array.array("I", [LENGTH]) * CHUNKS
    return ChunkTable(sha256, LENGTH * CHUNKS, minimum=1, average=LENGTH, maximum=1 << 20, lengths=lengths, digests=digests)

opened, seeds = [], []
path = os.path.join(sys.argv[2], "wanted")
with open(path, "wb") as file:
    file.write(os.urandom(32 * CHUNKS))
for number in range(4):  # four files stand for all: each table is looked at by itself
    with open(path, "rb") as file:  # a quarter of the wanted one in each, elsewhere
        file.seek(8 * CHUNKS * number)
        digests = os.urandom(24 * CHUNKS) + file.read(8 * CHUNKS)
    with open(os.path.join(sys.argv[2], str(number)), "wb") as file:
        file.write(serialize(table(f"{number:064x}", digests)))
del digests
seeds = [Cached(f"{number % 4:064x}", os.path.join(sys.argv[2], str(number % 4))) for number in range(SEEDS)]
with open(path, "rb") as file:
    assembly = prepare(table("f" * 64, file.read()), seeds, 0.0)
assert assembly is not None and sorted(opened) == [f"{number:064x}" for number in range(4)]
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM")))
"""


def test_the_choice_for_five_gigabytes_takes_less_than_64_mib(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT), str(tmp_path)]
    peak = int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    assert peak < BAR, f"{peak / (1 << 20):.0f} MiB"
