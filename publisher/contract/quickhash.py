"""``hashlib.sha256`` without importing ``hashlib``: that loads OpenSSL, which takes a third as long as starting Python.

The interpreter has an implementation of its own, which takes six times as long for a byte. So it is for what a warm answer
hashes: names, an index, one shard. Files and everything that is larger are for ``hashlib``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha256 import sha256  # until Python 3.11
    except ImportError:
        try:
            from _sha2 import sha256
        except ImportError:  # some distributions leave it out
            from hashlib import sha256

__all__ = ("sha256",)
