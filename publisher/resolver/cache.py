"""SIFs on this host's disk, fetched once however many jobs want them.

Who fetches a SIF holds the flock(2) of ``locks/<sha256>``, writes ``sif/<2>/<sha256>.part`` and renames it; who waits takes over
where it was killed, and goes on with what had come. :mod:`shelf` has how a SIF stands there and how a hit is checked,
:mod:`pins` what keeps it there while a job runs, :mod:`room` what goes when there is no room, :mod:`slots` who may fetch.

Trust: this finds what disks, crashes and accidents do. Who runs as the same user can rewrite a SIF and its note; so there is
one cache for each user, and a directory that others may write, or that somebody other than this user or root owns, is refused.
The safer form is a store: a second such directory that root or an account of the site fills, and jobs only read.
"""

from __future__ import annotations

import os

from publisher.resolver import pins, tally
from publisher.resolver.errors import BusyError, CacheError
from publisher.resolver.shelf import Shelf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.resolver.config import Settings
    from publisher.resolver.manifest import Sif
    from publisher.resolver.room import Limit
    from publisher.resolver.sources import Source


class Cache:
    """The cache in the directory ``root``, which is made (mode 0700) when it is needed; ``user`` or root must own it.

    Attributes:
        shelf: where its SIFs are.
        store: a shelf that others fill and this only reads; None for none.
    """

    def __init__(
        self,
        root: str,
        user: int | None = None,
        *,
        most: Limit | None = None,
        free: Limit = (0, 0.0),
        store: Shelf | None = None,
        turns: Sequence[str] = (),
    ) -> None:
        """``most``, ``free``: as of :class:`publisher.resolver.room.Room`; ``turns``: files, one for each fetch at once."""
        self.root = root
        self.shelf = Shelf(root, (os.geteuid() if user is None else user, 0))
        self.store = store
        self._most = most
        self._free = free
        self._turns = turns

    def prepare(self) -> None:
        """Make the directory, or see that it is safe.

        Raises:
            CacheError: somebody else's, open to others' writing, or not to be made.
        """
        try:
            try:
                self.shelf.check()
            except FileNotFoundError:
                os.makedirs(self.root, mode=0o700, exist_ok=True)
                self.shelf.check()
        except OSError as error:
            raise CacheError(f"cannot make the cache {self.root}: {error.strerror}") from None

    def sif(
        self,
        sif: Sif,
        places: Sequence[Source],
        patience: float | None = None,
        *,
        until: float | None = None,
        pin: int | None = None,
        name: str = "",
    ) -> tuple[str, str]:
        """The path of a SIF in the cache, and the place it was fetched from just now: empty where it was there.

        Args:
            sif: which one.
            places: where it is fetched from.
            patience: seconds to wait for other processes that fetch it, or anything; as long as a download may take when None.
            until: reading of the monotonic clock at which waiting and fetching end; None for no other end than their own.
            pin: process id of who holds it from now on, so that it stays; None for nobody.
            name: the image's, for lists.

        Raises:
            CacheError: an unusable cache; RoomError, a kind of it: no room; BusyError: other processes do not come to an end.
            FetchError: no place has the right bytes.
        """
        self.prepare()
        if self.store is not None and self._stored(sif.sha256, pin):
            tally.hit(self.root)
            return self.store.path(sif.sha256), ""
        pinned = pin is not None and pins.pin(self.root, sif.sha256, pin)
        came_from = None
        try:
            came_from = self._had(sif, name, places, patience, until)
        finally:
            if came_from is None and pinned and pin is not None:
                pins.release(self.root, pin, sif.sha256)
        return self.shelf.path(sif.sha256), came_from

    def _had(self, sif: Sif, name: str, places: Sequence[Source], patience: float | None, until: float | None) -> str:
        """Have a SIF on the shelf; where it was fetched from, if it was."""
        if self.shelf.has(sif.sha256):
            tally.hit(self.root)
            return ""
        from publisher.resolver.download import Download  # noqa: PLC0415 - a warm answer has none

        download = Download(self.shelf, sif, name, most=self._most, free=self._free, turns=self._turns)
        try:
            return download.run(places, patience, until)
        except TimeoutError:
            raise BusyError(f"another process has been fetching {self.shelf.path(sif.sha256)} for too long") from None
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be used: {error}") from None

    def _stored(self, sha256: str, pin: int | None) -> bool:
        """Whether the store has a SIF; pinned there then, if the store lets jobs.

        Raises:
            CacheError: the store is not safe.
        """
        store = self.store
        if store is None:
            return False
        try:
            store.check()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise CacheError(f"the store {store.root} cannot be used: {error.strerror}") from None
        pinned = pin is not None and pins.pin(store.root, sha256, pin)
        if store.has(sha256) and store.trusts(sha256):
            return True
        if pinned and pin is not None:
            pins.release(store.root, pin, sha256)
        return False


def of(settings: Settings) -> Cache:
    """The cache that the settings describe.

    Raises:
        CacheError: they name none.
    """
    if settings.cache is None:
        raise CacheError("there is no cache to fetch a SIF into", hint="--cache DIR")
    store = None if settings.store is None else Shelf(settings.store, (0, os.geteuid(), _uid(settings.store_owner)))
    turns = [os.path.join(settings.turns, str(number)) for number in range(settings.fetches)]
    return Cache(settings.cache, most=settings.cache_size, free=settings.cache_free, store=store, turns=turns)


def _uid(account: str) -> int:
    if account.isascii() and account.isdigit():
        return int(account)
    if account == "root":
        return 0
    import pwd  # noqa: PLC0415 - most stores are root's

    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        raise CacheError(f"there is no user {account!r}, who should own the store", hint="--store-owner") from None
