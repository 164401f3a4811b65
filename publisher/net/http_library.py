"""aiohttp, imported without the certificate authorities of this host, which take half of its import.

At its import aiohttp makes TLS contexts that are never used, because :class:`publisher.net.http_session.HttpSession` makes
its own for the first request over TLS. Here the unused ones trust nobody.
"""

from __future__ import annotations

import ssl

_create = ssl.create_default_context
ssl.create_default_context = lambda *_, **__: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
try:
    import aiohttp
finally:
    ssl.create_default_context = _create

__all__ = ["aiohttp"]
