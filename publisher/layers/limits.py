"""Limits on what one image may ask this host to process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerLimits:
    """The limits of one image; exceeding any of them ends the build with a :class:`publisher.errors.LayerError`.

    Attributes:
        unpacked_size: bytes of one layer's tar stream, and of all files of the flattened image.
        entries: entries of one layer, and of the flattened image with the directories that have no entry of their own. All layers
            together may have four times as many.
        layers: layers of one image (Docker itself stops at 127).
        path_length: bytes of a path (Linux' PATH_MAX less the mount point).
        depth: directories in each other.
        names_size: bytes of all names, each without its directory, and of the targets of symbolic links.
    """

    unpacked_size: int = 100 << 30
    entries: int = 2_000_000
    layers: int = 256
    path_length: int = 3800
    depth: int = 256
    names_size: int = 64 << 20


DEFAULT_LIMITS = LayerLimits()
