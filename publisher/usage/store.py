"""What is known of the use of images: counts by name and version, in a small SQLite file of the state directory.

It grows with the number of images and hosts, not with that of jobs. It can be deleted: traces and histories that still exist are
then read again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from publisher.system.sqlite_file import SqliteFile
from publisher.usage.history import rows
from publisher.usage.records import NameUsage, UseCount
from publisher.usage.traces import TraceFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.usage.records import JobRecord

FILE_NAME = "usage.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS use (source TEXT, name TEXT, digest TEXT, jobs INTEGER, last INTEGER,
    PRIMARY KEY (source, name, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS host (name TEXT, digest TEXT, host TEXT, last INTEGER,
    PRIMARY KEY (name, digest, host)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS candidate (source TEXT, reference TEXT, jobs INTEGER, last INTEGER,
    PRIMARY KEY (source, reference)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trace (key TEXT PRIMARY KEY, offset INTEGER, time INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (schedd TEXT PRIMARY KEY, until INTEGER, ids TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""
_KEPT = 400 * 86400
"""Seconds after which hosts, traces and candidates are forgotten."""
_MOST_CANDIDATES = 2000


class UsageStore(SqliteFile):
    """The open file, a context manager as :class:`publisher.system.sqlite_file.SqliteFile` says."""

    hint = "it can be deleted and read anew"

    def _make_tables(self) -> None:
        self._database.executescript(_TABLES)

    # --- reading records

    def read_trace(self, path: Path, now: int, is_known: Callable[[str], bool]) -> int:
        """Count what a trace has got since the last time; return the number of jobs. Raise UsageError.

        ``is_known`` returns whether a name is published or listed: others are not counted, because anybody can make them up.
        """
        trace = TraceFile(path, dict(self._database.execute("SELECT key, offset FROM trace")))
        counted = sum(self._count(record, is_known) for record in trace.records(now))
        if trace.key is not None:
            self._database.execute("INSERT OR REPLACE INTO trace VALUES (?, ?, ?)", (trace.key, trace.offset, now))
        return counted

    def read_history(self, content: bytes, now: int, is_known: Callable[[str], bool]) -> int:
        """Count the jobs of a history that have ended since the last time; return their number. Raise UsageError.

        Of each access point the latest time that was counted is remembered, with the jobs that ended in that second.
        """
        counted, found = 0, sorted(rows(content, now), key=lambda row: row.time)
        before = {schedd: (until, set(json.loads(ids))) for schedd, until, ids in self._database.execute("SELECT * FROM history")}
        for row in found:
            until, ids = before.get(row.schedd, (0, set()))
            if row.time < until or row.id in ids or row.time > now:
                continue
            before[row.schedd] = (row.time, {row.id, *(ids if row.time == until else ())})
            counted += row.record is not None and self._count(row.record, is_known)
        values = [(schedd, until, json.dumps(sorted(ids))) for schedd, (until, ids) in before.items()]
        self._database.executemany("INSERT OR REPLACE INTO history VALUES (?, ?, ?)", values)
        return counted

    def read_until(self) -> int:
        """Return the time up to which the histories of all access points were counted, 0 if none was."""
        return int(self._database.execute("SELECT coalesce(min(until), 0) FROM history").fetchone()[0])

    def _count(self, record: JobRecord, is_known: Callable[[str], bool]) -> bool:
        self._database.execute(
            "INSERT INTO setting VALUES ('since', ?) ON CONFLICT DO UPDATE SET value = min(value, excluded.value)", (record.time,)
        )
        if record.candidate:
            self._database.execute(
                "INSERT INTO candidate VALUES (?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last)",
                (record.source, record.candidate, record.time),
            )
            return True
        if not is_known(record.name):
            return False
        self._database.execute(
            "INSERT INTO use VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last)",
            (record.source, record.name, record.digest, record.time),
        )
        if record.host:
            self._database.execute(
                "INSERT INTO host VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET last = max(last, excluded.last)",
                (record.name, record.digest, record.host, record.time),
            )
        return True

    def trim(self, now: int) -> None:
        """Forget what is old, and the rarest candidates beyond a number: anybody can make them up."""
        for table, column in (("host", "last"), ("candidate", "last"), ("trace", "time")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} < ?", (now - _KEPT,))  # noqa: S608 - constants
        self._database.execute(
            "DELETE FROM candidate WHERE reference NOT IN"
            " (SELECT reference FROM candidate ORDER BY jobs DESC, last DESC LIMIT ?)",
            (_MOST_CANDIDATES,),
        )

    # --- what is known

    def since(self) -> int | None:
        """Return the time of the earliest job that was read, None if none was."""
        found = self._database.execute("SELECT value FROM setting WHERE key = 'since'").fetchone()
        return None if found is None else int(found[0])

    def usage(self) -> dict[str, NameUsage]:
        """Return name -> its use. A job may be in a trace and in a history, so the larger of both counts is taken."""
        hosts: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name, digest, host in self._database.execute("SELECT name, digest, host FROM host"):
            hosts[name, digest].add(host)
        query = "SELECT name, digest, source, jobs, last FROM use"
        found: dict[str, dict[str, list[tuple[str, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for name, digest, source, jobs, last in self._database.execute(query):
            found[name][digest].append((source, jobs, last))
        return {
            name: _name_usage(versions, {digest: hosts[name, digest] for digest in versions}) for name, versions in found.items()
        }

    def candidates(self) -> dict[str, UseCount]:
        """Return reference -> use of the images that jobs named by ``docker://``, the most used first."""
        query = "SELECT reference, max(jobs), max(last) FROM candidate GROUP BY reference ORDER BY 2 DESC, 3 DESC, 1"
        return {reference: UseCount(jobs, 0, last) for reference, jobs, last in self._database.execute(query)}


def load_usage(state: Path) -> dict[str, NameUsage]:
    """Return name -> its use, as far as this host knows; empty if nothing was ever read. Raise StateDirectoryError."""
    path = state / FILE_NAME
    if not path.exists():
        return {}
    with UsageStore(path) as store:
        return store.usage()


def _name_usage(versions: dict[str, list[tuple[str, int, int]]], hosts: dict[str, set[str]]) -> NameUsage:
    by_source: dict[str, int] = defaultdict(int)
    for counts in versions.values():
        for source, jobs, _ in counts:
            by_source[source] += jobs
    total = UseCount(
        max(by_source.values()),
        len(set().union(*hosts.values())),
        max(last for counts in versions.values() for _, _, last in counts),
    )
    each = {
        digest: UseCount(max(jobs for _, jobs, _ in counts), len(hosts[digest]), max(last for _, _, last in counts))
        for digest, counts in versions.items()
    }
    return NameUsage(total, each)
