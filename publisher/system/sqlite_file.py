"""An SQLite file of the state directory: what opens, stores and closes it, for the parts that remember something in one."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Self

from publisher.errors import StateDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TIMEOUT = 30  # seconds to wait for another process


class SqliteFile:
    """The open file.

    Use it as a context manager; everything is stored at the end of the block, and nothing if the block raises.

    Args:
        path: the file, created if it is missing.

    Attributes:
        hint: of a class: what to do if its file cannot be used, None if there is nothing to do.

    Raises:
        StateDirectoryError: it cannot be used.
    """

    hint: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        with self._failures():
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.closing(self._database), self._failures():
            if kind is None:
                self._database.commit()

    def _make_tables(self) -> None:
        """Make the tables that are missing. Raise ``sqlite3.DatabaseError`` for a file of another kind."""
        raise NotImplementedError

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, timeout=_TIMEOUT)
        try:
            self._make_tables()
        except sqlite3.Error:
            self._database.close()
            raise

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateDirectoryError(f"{self._path} cannot be used: {error}", hint=self.hint) from error
