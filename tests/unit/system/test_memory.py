from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.system.memory import available_memory

if TYPE_CHECKING:
    from pathlib import Path


def test_the_available_memory_is_what_the_kernel_says_or_the_total(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\n")
    assert available_memory(meminfo) == 1000 << 10
    meminfo.write_text("MemTotal:       1000 kB\nMemAvailable:    300 kB\n")
    assert available_memory(meminfo) == 300 << 10
    assert available_memory() > 1 << 20
