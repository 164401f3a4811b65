"""The architecture of a machine, in the words of Go and OCI."""

from __future__ import annotations

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv6l": "arm/v6", "armv7l": "arm/v7"}


def go_name(machine: str) -> str:
    """An architecture in the words of Go and OCI from those of uname(2): ``x86_64`` -> ``amd64``; others stay as they are."""
    return _GO_NAMES.get(machine, machine)
