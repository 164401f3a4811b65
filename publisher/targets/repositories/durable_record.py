"""Small JSON files about a transaction in progress, written durably for the run that finds them after a crash.

A record is on disk when :meth:`DurableRecord.save` returns, and readers never see half of one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from publisher.contract import files
from publisher.errors import RepositoryError

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = 1


@dataclass(frozen=True)
class DurableRecord(ABC):
    """A dataclass that is kept as one JSON object in a file.

    Attributes:
        FILE_MODE: the file's permission bits.
        DAMAGED_HINT: what an operator does about a file that cannot be parsed.
    """

    FILE_MODE: ClassVar[int]
    DAMAGED_HINT: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make a record from its JSON object. May raise ValueError, KeyError, TypeError or AttributeError."""

    def save(self, path: Path) -> None:
        """Write the record to ``path``, durably. Raises OSError."""
        content = json.dumps({"schema": _SCHEMA, **asdict(self)}).encode()
        files.replace(str(path), content, mode=self.FILE_MODE)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the record at ``path``; return None if there is no file.

        Raises:
            RepositoryError: the file is not a record of this class and schema.
            OSError: the file cannot be read.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            values: dict[str, Any] = json.loads(content)
            if values.pop("schema") != _SCHEMA:
                raise ValueError("unknown schema")  # noqa: TRY301 - one message for everything that is not a record
            return cls.from_json(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RepositoryError(f"{path} is damaged, or of another version: {error}", hint=cls.DAMAGED_HINT) from error
