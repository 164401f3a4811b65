"""Lines of file indexes as they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publisher.fileindex.format import IndexedFile


def raw(line: IndexedFile) -> bytes:
    """Return a line whose path and content need no escape."""
    columns = b"%o %d %d %d %d" % (line.mode, line.uid, line.gid, line.size, line.mtime)
    more = b" " + line.xattrs if line.xattrs else b""
    return b"%s %s %s%s\t%s" % (line.kind.encode(), columns, line.content or b"-", more, line.path)
