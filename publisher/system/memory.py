"""The memory of this host."""

from __future__ import annotations

from pathlib import Path


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes of memory that programs can take without swapping (proc(5)); the total where the kernel does not say."""
    values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(values.get("MemAvailable", values["MemTotal"]).split()[0]) << 10
