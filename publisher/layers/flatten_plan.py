"""The plan of a flattened image: what happens to every entry of every layer."""

from __future__ import annotations

from dataclasses import dataclass, field

DROP, KEEP, RENAME = 0, 1, 2
"""What happens to an entry: it is left out, written under its own name, or written under :attr:`FlattenPlan.new_names`."""


@dataclass
class FlattenPlan:
    """A plan that names the surviving entries of an image.

    Attributes:
        actions: per layer one byte per entry: :data:`DROP`, :data:`KEEP` or :data:`RENAME`.
        new_names: ``layer << 32 | ordinal`` -> all names of an entry that moved or has hard links, in the tree's order.
        implied_directories: directories without an entry of their own, parents first.
        dropped: kind -> number of the entries that the tree policy dropped, or kept with a warning; some are counted only while
            the stream is written.
        root: ``layer << 32 | ordinal`` of the root directory's entry, None where no layer has one.
    """

    actions: list[bytearray]
    new_names: dict[int, list[bytes]] = field(default_factory=dict)
    implied_directories: list[bytes] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    root: int | None = None

    @property
    def entry_count(self) -> int:
        """Return the number of entries of layers that survive."""
        return sum(len(actions) - actions.count(DROP) for actions in self.actions)
