"""Several origins as one: an object counts as stored once it is in the first; the others follow, and never fail a run.

What a follower does not take is reported, and nothing more is asked of it in this run, so that its index names nothing that it
lacks. Later runs copy from the first origin what a follower lacks, and remove from it what has left the first.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from publisher.chunks.reader import FileCopy
from publisher.errors import OriginError, PublisherError
from publisher.targets.origins.base import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from publisher.chunks.reader import ByteReader

_log = logging.getLogger(__name__)


class OriginPlaces(NamedTuple):
    """The directories of SIFs and of the manifest, and the name of the manifest's index, the only object that changes."""

    objects: str
    manifest: str
    index_name: str


class ReplicatedOrigin(Origin):
    """An origin with followers.

    Args:
        first: the origin that counts; everything is read from it.
        followers: name for messages -> origin.
        scratch: an existing directory for objects on their way to a follower; None for the host's own.

    Attributes:
        first: the origin that counts.
        behind: name of a follower -> why nothing more is sent to it by this object.
    """

    def __init__(self, first: Origin, followers: Mapping[str, Origin], scratch: Path | None = None) -> None:
        self.behind: dict[str, str] = {}
        self.first = first
        self._followers = dict(followers)
        self._scratch = scratch

    def recover(self) -> list[str]:
        """See :meth:`Origin.recover`."""
        lines = self.first.recover()
        self._follow("sweep killed uploads", lambda _, follower: lines.extend(follower.recover()))
        return lines

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """See :meth:`Origin.put`."""
        is_new = self.first.put(name, source, sha256=sha256, size=size)
        self._follow(f"store {name}", lambda _, follower: follower.put(name, source, sha256=sha256, size=size))
        return is_new

    def put_bytes(self, name: str, content: bytes) -> bool:
        """See :meth:`Origin.put_bytes`."""
        is_new = self.first.put_bytes(name, content)
        self._follow(f"store {name}", lambda _, follower: follower.put_bytes(name, content))
        return is_new

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Origin.replace`."""
        self.first.replace(name, content)
        self._follow(f"replace {name}", lambda _, follower: follower.replace(name, content))

    def read(self, name: str) -> bytes | None:
        """See :meth:`Origin.read`."""
        return self.first.read(name)

    def size(self, name: str) -> int | None:
        """See :meth:`Origin.size`."""
        return self.first.size(name)

    def modified(self, name: str) -> float | None:
        """See :meth:`Origin.modified`."""
        return self.first.modified(name)

    def local_path(self, name: str) -> Path | None:
        """See :meth:`Origin.local_path`."""
        return self.first.local_path(name)

    def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
        """See :meth:`Origin.sha256`."""
        return self.first.sha256(name, reader)

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`Origin.names`."""
        return self.first.names(prefix)

    def remove(self, name: str) -> None:
        """See :meth:`Origin.remove`. What a follower keeps is removed when it catches up."""
        self.first.remove(name)
        self._follow(f"remove {name}", lambda _, follower: follower.remove(name))

    def lacking(self, names: Collection[str], *, deep: bool = False) -> dict[str, list[str]]:
        """Return follower -> those of the names that it lacks, or has with another size; with ``deep``, or with other content."""
        found: dict[str, list[str]] = {}

        def look(name: str, follower: Origin) -> None:
            found[name] = [one for one in names if self._differs(one, follower, deep=deep)]

        self._follow("look for objects", look)
        return found

    def catch_up(self, live: Collection[str], places: OriginPlaces, *, limit: int | None = None, deep: bool = False) -> list[str]:
        """Make the followers like the first origin: objects, then the manifest, and its index last.

        Args:
            live: names of the objects that the manifest names.
            places: where objects and the manifest are.
            limit: number of objects that each follower gets at most; None for all.
            deep: also compare sizes and contents.

        Returns:
            A line for each object that was copied or removed.
        """
        lines: list[str] = []

        def follow(name: str, follower: Origin) -> None:
            first, own = set(self.first.names(places.objects)), set(follower.names(places.objects))
            for gone in sorted(own - first - set(live)):
                follower.remove(gone)
                lines.append(f"removed {gone} from {name}")
            wanted = sorted(first & set(live))
            lacking = [one for one in wanted if one not in own or (deep and self._differs(one, follower, deep=True))]
            manifest = set(self.first.names(places.manifest)) - set(follower.names(places.manifest)) - {places.index_name}
            for one in [*lacking[:limit], *sorted(manifest)]:
                follower.remove(one)
                self._copy(one, follower)
                lines.append(f"copied {one} to {name}")
            content = self.first.read(places.index_name)
            if len(lacking) <= (limit or len(lacking)) and content is not None and follower.read(places.index_name) != content:
                follower.replace(places.index_name, content)
                lines.append(f"copied {places.index_name} to {name}")

        self._follow("catch up", follow)
        return lines

    def warnings(self) -> list[str]:
        """Return a line for each follower that is behind."""
        return [f"the origin {name} is behind: {reason}" for name, reason in self.behind.items()]

    def _differs(self, name: str, follower: Origin, *, deep: bool) -> bool:
        """Return whether a follower lacks an object of the first origin; what that lacks itself is no matter of followers."""
        size = self.first.size(name)
        if size is None or follower.size(name) != size:
            return size is not None
        return deep and follower.sha256(name) != self.first.sha256(name)

    def _copy(self, name: str, follower: Origin) -> None:
        with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
            sha256 = self.first.sha256(name, FileCopy(file))
            file.flush()
            if sha256 is None:
                raise OriginError(f"{name} cannot be read from the first origin")
            follower.put(name, Path(file.name), sha256=sha256, size=file.tell())

    def _follow(self, action: str, do: Callable[[str, Origin], object]) -> None:
        """Do something on each follower that is not behind; one that fails is behind from now on."""
        for name, follower in self._followers.items():
            if name in self.behind:
                continue
            try:
                do(name, follower)
            except PublisherError as error:
                self.behind[name] = error.reason
                _log.warning("the origin %s could not %s, and gets nothing more in this run: %s", name, action, error)


def warnings_of(origin: Origin) -> list[str]:
    """Return a line for each origin that is behind, if there are several."""
    return origin.warnings() if isinstance(origin, ReplicatedOrigin) else []


def behind_of(origin: Origin) -> dict[str, str]:
    """Return origin -> why it is behind, of the origins that follow another one."""
    return dict(origin.behind) if isinstance(origin, ReplicatedOrigin) else {}
