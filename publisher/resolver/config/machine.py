"""The architecture of a machine as Go and OCI name it."""

from __future__ import annotations

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv6l": "arm/v6", "armv7l": "arm/v7"}


def go_name(machine: str) -> str:
    """Return the Go and OCI name of an architecture of uname(2): ``x86_64`` -> ``amd64``. Other names are returned unchanged."""
    return _GO_NAMES.get(machine, machine)
