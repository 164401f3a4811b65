"""What the page remembers between syncs, in an SQLite file of the state directory, so that a sync writes only what has changed.

All of it can be lost: the next sync then writes every file again and reads the history from the publication log. Lost for good
are the points of the plots; environment and entry point of an image are known again once it is built again. Times are seconds
since the epoch.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.page.details import BuildChanges, ImageDetails
from publisher.system.sqlite_file import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_VERSION = 1
_TABLES = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE file (path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event (id INTEGER PRIMARY KEY, time INTEGER, serial INTEGER, name TEXT, platform TEXT, digest TEXT, what TEXT,
    reason TEXT, registry TEXT);
CREATE INDEX event_name ON event (name, id);
CREATE INDEX event_what ON event (what, time);
CREATE TABLE detail (digest TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE build_change (digest TEXT, previous TEXT, value TEXT NOT NULL, PRIMARY KEY (digest, previous)) WITHOUT ROWID;
CREATE TABLE total (day INTEGER PRIMARY KEY, images INTEGER, sandboxes INTEGER, sifs INTEGER);
CREATE TABLE lag (time INTEGER, name TEXT, seconds INTEGER);
"""
FAILED = "failed"
"""What an event says of an image that began to fail; the others have the words of the publication log."""


@dataclass(frozen=True)
class PageEvent:
    """A change that the page tells of.

    Attributes:
        time: when it was.
        serial: of the manifest that published it; 0 for one that is not in the manifest.
        name, platform, digest: of the image.
        what: a word of the publication log, or :data:`FAILED`.
        reason: why, if somebody or something gave a reason.
        registry: where the image comes from, if it failed.
        number: counts the events.
    """

    time: int
    serial: int
    name: str
    platform: str
    digest: str
    what: str
    reason: str = ""
    registry: str = ""
    number: int = 0


@dataclass(frozen=True)
class DayTotal:
    """The totals of a day (days since the epoch): number of images, and bytes of all sandboxes and SIFs."""

    day: int
    images: int
    sandboxes: int
    sifs: int


class PageMemory(SqliteFile):
    """The open file, as :class:`publisher.system.sqlite_file.SqliteFile` says; it is made anew if it is damaged."""

    def _open(self) -> None:
        try:
            super()._open()
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
            super()._open()

    def _make_tables(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            raise sqlite3.DatabaseError(f"version {version}")
        if version == 0:
            self._database.executescript(f"{_TABLES}PRAGMA user_version = {_VERSION};")

    # --- settings and files

    def get(self, key: str, default: Any = None) -> Any:
        """Return the JSON value that :meth:`put` stored."""
        found = self._database.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return default if found is None else json.loads(found[0])

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value."""
        self._database.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, json.dumps(value)))

    def files(self) -> dict[str, str]:
        """Return path -> fingerprint of the files that were written."""
        return dict(self._database.execute("SELECT path, fingerprint FROM file"))

    def wrote(self, path: str, fingerprint: str) -> None:
        """Remember a file that was written."""
        self._database.execute("INSERT OR REPLACE INTO file VALUES (?, ?)", (path, fingerprint))

    def removed(self, path: str) -> None:
        """Forget a file that was removed."""
        self._database.execute("DELETE FROM file WHERE path = ?", (path,))

    def forget_files(self) -> None:
        """Forget all files: they are written again."""
        self._database.execute("DELETE FROM file")

    # --- events

    def add_events(self, events: Iterable[PageEvent]) -> None:
        """Add events, the oldest first."""
        rows = [(e.time, e.serial, e.name, e.platform, e.digest, e.what, e.reason, e.registry) for e in events]
        columns = "(time, serial, name, platform, digest, what, reason, registry)"
        self._database.executemany(f"INSERT INTO event {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608 - constant

    def events(self, name: str | None = None, limit: int = 100) -> list[PageEvent]:
        """Return the newest events, of one image or of all."""
        where, values = ("", ()) if name is None else ("WHERE name = ?", (name,))
        columns = "time, serial, name, platform, digest, what, reason, registry, id"
        query = f"SELECT {columns} FROM event {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - constant
        return [PageEvent(*row) for row in self._database.execute(query, (*values, limit))]

    def newest_events(self) -> dict[str, int]:
        """Return name -> number of its newest event."""
        return dict(self._database.execute("SELECT name, max(id) FROM event GROUP BY name"))

    def failures_by_registry(self, since: int) -> dict[str, int]:
        """Return registry -> number of times that an image of it began to fail since a time."""
        query = "SELECT registry, count(*) FROM event WHERE what = ? AND time >= ? GROUP BY registry"
        return dict(self._database.execute(query, (FAILED, since)))

    # --- images

    def details(self, digest: str) -> ImageDetails | None:
        """Return what the image with this digest says of itself, None if that is not known."""
        found = self._database.execute("SELECT value FROM detail WHERE digest = ?", (digest,)).fetchone()
        return None if found is None else ImageDetails.decode(found[0])

    def known_details(self) -> set[str]:
        """Return the digests of which details are known."""
        return {digest for (digest,) in self._database.execute("SELECT digest FROM detail")}

    def add_details(self, details: Mapping[str, ImageDetails]) -> None:
        """Remember digest -> what the image says of itself."""
        rows = [(digest, found.encode()) for digest, found in details.items()]
        self._database.executemany("INSERT OR REPLACE INTO detail VALUES (?, ?)", rows)

    def build_changes(self, digest: str, previous: str) -> BuildChanges | None:
        """Return what changed between two builds, None if they were not compared."""
        query = "SELECT value FROM build_change WHERE digest = ? AND previous = ?"
        found = self._database.execute(query, (digest, previous)).fetchone()
        return None if found is None else BuildChanges.decode(found[0])

    def compared(self) -> set[tuple[str, str]]:
        """Return digest and previous digest of the builds that were compared."""
        return set(self._database.execute("SELECT digest, previous FROM build_change"))

    def add_build_changes(self, digest: str, changes: BuildChanges) -> None:
        """Remember what changed in a build."""
        row = (digest, changes.previous, changes.encode())
        self._database.execute("INSERT OR REPLACE INTO build_change VALUES (?, ?, ?)", row)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Forget the details of all other images."""
        self._database.execute("CREATE TEMP TABLE wanted (digest TEXT PRIMARY KEY)")
        self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(digest,) for digest in digests])
        for table in ("detail", "build_change"):
            self._database.execute(f"DELETE FROM {table} WHERE digest NOT IN (SELECT digest FROM wanted)")  # noqa: S608
        self._database.execute("DROP TABLE wanted")

    # --- points of the plots

    def set_total(self, total: DayTotal) -> None:
        """Set the totals of a day."""
        row = (total.day, total.images, total.sandboxes, total.sifs)
        self._database.execute("INSERT OR REPLACE INTO total VALUES (?, ?, ?, ?)", row)

    def totals(self) -> list[DayTotal]:
        """Return the totals of all days, the oldest first."""
        return [DayTotal(*row) for row in self._database.execute("SELECT * FROM total ORDER BY day")]

    def add_lag(self, time: int, name: str, seconds: int) -> None:
        """Remember how long a change of a tag took to be published."""
        self._database.execute("INSERT INTO lag VALUES (?, ?, ?)", (time, name, seconds))

    def lags(self, since: int) -> list[tuple[int, int]]:
        """Return time of publication and seconds that it took, since a time, the oldest first."""
        return list(self._database.execute("SELECT time, seconds FROM lag WHERE time >= ? ORDER BY time", (since,)))
