"""Totals of a plan's tar stream, computed before it is written: newest time, size, root directory.

mksquashfs needs them on its command line, before it reads the first entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import LayerError
from publisher.layers.emit import published_mode
from publisher.layers.index import read_attributes
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.layers.flatten_plan import FlattenPlan

_MAX_IDS = 65_536  # users and groups together, that a squashfs can hold
_DEFAULT_ROOT = (0o755, 0, 0)


@dataclass(frozen=True)
class StreamSurvey:
    """The totals of a plan.

    Attributes:
        newest: the highest modification time that is not in the future, seconds since the epoch; 0 where there is none.
        unpacked_size: bytes of all surviving files.
        root: mode (as published), uid and gid of the root directory. The owner is always 0:0: with ``-tar``, mksquashfs 4.5.1
            gives the root directory to the user who runs it, and it runs as user 0 of a user namespace.
    """

    newest: int
    unpacked_size: int
    root: tuple[int, int, int]


def survey(plan: FlattenPlan, indexes: Sequence[Path], now: int, limits: LayerLimits = DEFAULT_LIMITS) -> StreamSurvey:
    """Return the totals of a plan.

    Args:
        plan: the plan.
        indexes: header indexes of its layers, from the bottom up.
        now: seconds since the epoch; later modification times are ignored.
        limits: limits of the image.

    Raises:
        LayerError: the flattened image is larger than the limit, or has more owners and groups than a SIF can hold.
    """
    newest = total = 0
    ids = {0}
    for actions, index in zip(plan.actions, indexes, strict=True):
        for size, mtime, _, _, uid, gid, _ in compress(read_attributes(index), actions):
            if newest < mtime <= now:
                newest = mtime
            total += size
            ids.add(uid)
            ids.add(gid)
            if len(ids) > _MAX_IDS:
                raise LayerError(
                    f"the image's files have more than {_MAX_IDS} different owners and groups, which a SIF cannot hold",
                    hint="the image's owner has to build it with fewer, for example by chown",
                )
    if total > limits.unpacked_size:
        raise LayerError(f"the image unpacks to {format_size(total)}, but only {format_size(limits.unpacked_size)} are allowed")
    return StreamSurvey(newest, total, _root(plan, indexes))


def _root(plan: FlattenPlan, indexes: Sequence[Path]) -> tuple[int, int, int]:
    if plan.root is None:
        return _DEFAULT_ROOT
    layer, ordinal = plan.root >> 32, plan.root & 0xFFFFFFFF
    for position, (_, _, _, mode, *_) in enumerate(read_attributes(indexes[layer])):
        if position == ordinal:
            return published_mode(b"5", mode), 0, 0
    raise AssertionError("the plan names an entry that its index does not have")
