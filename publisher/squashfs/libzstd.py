"""The zstd library that mksquashfs of this host is linked with, called in this process.

Another version of zstd compresses to other bytes, so the ``zstandard`` package, which brings its own, cannot stand in.
The functions are those of ``zstd.h``, of its stable part.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Libzstd:
    """A loaded libzstd.

    Args:
        path: path of the library, or its name: ``libzstd.so.1``.

    Attributes:
        version: ``1.5.4``.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it is another library.
    """

    def __init__(self, path: str = "libzstd.so.1") -> None:
        library = ctypes.CDLL(path)
        library.ZSTD_versionString.restype = ctypes.c_char_p
        library.ZSTD_createCCtx.restype = ctypes.c_void_p
        library.ZSTD_freeCCtx.argtypes = [ctypes.c_void_p]
        library.ZSTD_compressCCtx.restype = ctypes.c_size_t
        library.ZSTD_compressCCtx.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),  # the context, and where the result goes
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int),  # the content, and the level
        ]
        self.version: str = library.ZSTD_versionString().decode()
        self._path = path
        self._library = library

    def __reduce__(self) -> tuple[type[Libzstd], tuple[str]]:
        """Return what loads the library again in another process."""
        return Libzstd, (self._path,)

    def compressor(self, level: int, capacity: int) -> Callable[[bytes], bytes | None]:
        """Return a function, for one thread, that returns a block compressed: None if it would not become smaller.

        Args:
            level: the level of the compression.
            capacity: bytes of the largest block; as in mksquashfs, what is larger than that when compressed is given up.
        """
        context = _Context(self._library)
        out = ctypes.create_string_buffer(capacity)
        compress = self._library.ZSTD_compressCCtx

        def compressed(block: bytes) -> bytes | None:
            size: int = compress(context.pointer, out, capacity, block, len(block), level)  # errors are numbers close to 2**64
            return ctypes.string_at(out, size) if 0 < size < len(block) else None

        return compressed


class _Context:
    """A compression context, which is freed with this object."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.pointer = library.ZSTD_createCCtx()
        if not self.pointer:
            raise MemoryError("libzstd has no memory for a compression context")

    def __del__(self) -> None:
        if self.pointer:
            self._library.ZSTD_freeCCtx(self.pointer)
