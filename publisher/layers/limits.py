"""Layers in, one tree out: index -> flatten -> emit.

``index`` reads a layer once, while it arrives, and keeps its headers; ``flatten`` decides from the headers of all layers
which entry of which layer survives; ``emit`` writes the survivors as one tar stream that mksquashfs takes. No layer is
ever unpacked to disk, so nothing a layer says can touch this host.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerLimits:
    """What one image may ask for. Whatever exceeds a limit ends the build with a :class:`publisher.errors.LayerError`.

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
