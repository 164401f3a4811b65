"""What was told, and the notices that are not delivered yet, in a file of the state directory between runs.

It can be lost: the next run then notes the present states without telling anybody.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import StateDirectoryError
from publisher.notices.changes import StateChange, ToldState
from publisher.system.durable import failures

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """A message about changes, for one recipient.

    Attributes:
        channel: how it is sent: ``mail``, ``json`` or ``slack``.
        recipient: an address, or the id of a webhook, which is no secret as its URL may be.
        changes: the changes that it is about.
        made: when the changes were seen, seconds since the epoch.
    """

    channel: str
    recipient: str
    changes: tuple[StateChange, ...]
    made: int


@dataclass
class NoticeMemory:
    """What is remembered.

    Attributes:
        told: name -> what was last told; None before the first run.
        waiting: notices that are to be delivered, the oldest first.
    """

    told: dict[str, ToldState] | None = None
    waiting: list[Notice] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> NoticeMemory:
        """Return what a file has; nothing if it is missing or damaged."""
        try:
            value = json.loads(path.read_bytes())
            told = {str(name): ToldState(**state) for name, state in value["told"].items()}
            waiting = [
                Notice(**{**one, "changes": tuple(StateChange(**change) for change in one["changes"])})
                for one in value["waiting"]
            ]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _log.debug("no notices are remembered: %s", error)
            return cls()
        return cls(told, waiting)

    def save(self, path: Path) -> None:
        """Write the file, for this account only: it has addresses of people. Raise StateDirectoryError or SpaceError."""
        value = {
            "told": {name: asdict(state) for name, state in (self.told or {}).items()},
            "waiting": [asdict(notice) for notice in self.waiting],
        }
        with failures(StateDirectoryError, f"{path} cannot be written"):
            files.replace(str(path), json.dumps(value).encode(), mode=0o600)
