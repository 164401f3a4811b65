"""What becomes of every entry of every layer: the result of :mod:`publisher.layers.flatten`."""

from __future__ import annotations

from dataclasses import dataclass, field

DROP, PASS, MOVE = 0, 1, 2
"""What becomes of an entry: nothing, passed on under its own name, or passed on under the names of :attr:`Plan.names`."""


@dataclass
class FlattenPlan:
    """What survives.

    Attributes:
        actions: per layer a byte per entry: :data:`DROP`, :data:`PASS` or :data:`MOVE`.
        names: ``layer << 32 | ordinal`` -> all names of an entry that moved or has hard links, in the tree's order.
        implied: directories that no entry describes, parents first.
        dropped: what the tree policy dropped, and what it let pass with a warning, counted by kind; some of it is known when the
            stream has been emitted.
        root: the entry of the root directory itself, None where no layer has one.
    """

    actions: list[bytearray]
    names: dict[int, list[bytes]] = field(default_factory=dict)
    implied: list[bytes] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    root: int | None = None

    @property
    def kept(self) -> int:
        """Entries of layers that survive."""
        return sum(len(actions) - actions.count(DROP) for actions in self.actions)
