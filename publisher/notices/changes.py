"""Which images have changed their state since the last notice about them. Pure; times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.status.answer import ImageState, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.status.answer import ImageAnswer, Known

_PASSING_BY = (ImageState.WAITING, ImageState.BUILDING)
"""States between two others, which nobody is told of."""
_ABSENT = (ImageState.UNLISTED, ImageState.DROPPED)


@dataclass(frozen=True)
class ToldState:
    """What was last told of an image.

    Attributes:
        state: the state, a value of :class:`publisher.status.answer.ImageState`.
        time: when it was told; 0 if it was only noted, without a notice.
        owner: the image's owner in the list at that time; empty if it names none.
    """

    state: str
    time: int
    owner: str = ""


@dataclass(frozen=True)
class StateChange:
    """A change of which owner and operator are told.

    Attributes:
        name: the image's CVMFS name.
        state: its state now.
        before: the state that was told before, empty for a new image.
        reason: why, in a sentence for the researcher.
        since: when the state began, 0 if that is not known.
        owner: who is responsible for it; empty if that is not known.
    """

    name: str
    state: str
    before: str
    reason: str
    since: int
    owner: str


def find_changes(
    known: Known, told: Mapping[str, ToldState] | None, now: int, quiet: float
) -> tuple[list[StateChange], dict[str, ToldState]]:
    """Return the changes to tell now, and what has been told once they are.

    A change waits while the last notice about its image is younger than the quiet period. So does a failure that is expected to
    pass (a registry that is down) while the failure is younger. It is told later if it still holds then.

    Args:
        known: all that is known of the images.
        told: name -> what was last told; None if nothing was ever noted: then the present states are noted without a notice.
        now: the time.
        quiet: seconds of the quiet period.
    """
    names = known.names if told is None else sorted({*known.names, *told})
    changes, after = [], {}
    for name in names:
        found, before = answer(known, [name]), (told or {}).get(name)
        owner = _owner(known, name) or ("" if before is None else before.owner)
        if told is None:
            after[name] = ToldState(found.state.value, 0, owner)
        elif _is_quiet(found, before, now, quiet):
            if before is not None:
                after[name] = before
        else:
            if found.state not in _ABSENT:
                after[name] = ToldState(found.state.value, now, owner)
            was = "" if before is None else before.state
            changes.append(StateChange(name, found.state.value, was, found.reason, found.since or 0, owner))
    return changes, after


def _is_quiet(found: ImageAnswer, before: ToldState | None, now: int, quiet: float) -> bool:
    """Return whether nothing is told of an image now."""
    if found.state in _PASSING_BY or (before is None and found.state in _ABSENT):
        return True
    if before is not None and (before.state == found.state.value or now - before.time < quiet):
        return True
    is_passing = found.state is ImageState.FAILING and found.last is not None and found.last.passing
    return is_passing and now - (found.since or now) < quiet


def _owner(known: Known, name: str) -> str:
    listed = known.listed(name)
    return "" if listed is None or listed.owner is None else listed.owner
