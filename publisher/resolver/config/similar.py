"""What was probably meant by a word that does not exist."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def similar_hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known word that is most similar to ``word``, or ``otherwise`` if none is similar."""
    import difflib  # noqa: PLC0415 - it takes milliseconds, and only mistakes need it

    found = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {found[0]}?" if found else otherwise
