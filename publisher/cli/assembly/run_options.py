"""The operator's options for one run, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """The operator's options for one run.

    Attributes:
        names: the images to publish; all if empty.
        rebind: published names that may come from another repository of a registry than before.
        allow_mass_removal: whether more names than usual may leave.
    """

    names: tuple[str, ...] = ()
    rebind: tuple[str, ...] = ()
    allow_mass_removal: bool = False
