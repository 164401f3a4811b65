"""The environment of a job as HTCondor writes it into the ad (its manual, "environment", new syntax). This module is pure.

Variables are separated by white space. In single quotes white space is part of a value, and two single quotes are one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def without(text: str, names: Collection[str]) -> str:
    """Return an environment without the variables of these names; the text itself if it has none of them."""
    variables = list(_split(text))
    kept = [variable for variable in variables if variable.replace("'", "").partition("=")[0] not in names]
    return text if len(kept) == len(variables) else " ".join(kept)


def _split(text: str) -> Iterator[str]:
    """Yield each variable as it is written, with its quotes."""
    begin, quoted = 0, False
    for position, character in enumerate(text):
        if character == "'":  # two of them in quotes end the quotes and begin them again
            quoted = not quoted
        elif character.isspace() and not quoted:
            if begin < position:
                yield text[begin:position]
            begin = position + 1
    if begin < len(text):
        yield text[begin:]
