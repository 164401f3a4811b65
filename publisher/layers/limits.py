"""Limits on what one image may ask this host to process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerLimits:
    """The limits of one image; exceeding any of them ends the build with a :class:`publisher.errors.LayerError`.

    Attributes:
        unpacked_size: bytes of one layer's tar stream, and of all files of the flattened image.
        entries: entries of one layer, and of the flattened image.
        layers: layers of one image (Docker itself stops at 127).
        path_length: bytes of a path (Linux' PATH_MAX less the mount point).
    """

    unpacked_size: int = 100 << 30
    entries: int = 5_000_000
    layers: int = 256
    path_length: int = 3800


DEFAULT_LIMITS = LayerLimits()
