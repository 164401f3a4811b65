"""Warnings about registries: conditions that the operator should know about although no request has failed because of them."""

from __future__ import annotations


class RegistryWarnings:
    """The warnings of a run, at most one for each subject."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def add(self, subject: str, text: str) -> None:
        """Add a warning, unless there is one with the same subject already."""
        self._texts.setdefault(subject, text)

    def all(self) -> list[str]:
        """Return the warnings, one line each, in the order in which they were added."""
        return list(self._texts.values())
