"""What the operator should know though nothing has failed for it: gathered during a run, each said once."""

from __future__ import annotations


class RegistryWarnings:
    """The notices so far."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def add(self, about: str, text: str) -> None:
        """Say something, unless something has been said about the same matter."""
        self._said.setdefault(about, text)

    def all(self) -> list[str]:
        """One line each, in the order of their coming."""
        return list(self._said.values())
