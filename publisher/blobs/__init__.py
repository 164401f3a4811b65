"""Blobs by their digest, fetched once for all images and verified while they arrive, each layer with its header index."""

from __future__ import annotations

from publisher.blobs.store import BlobStore

__all__ = ["BlobStore"]
