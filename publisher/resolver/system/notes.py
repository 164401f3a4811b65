"""What is worth saying beside the answer."""

from __future__ import annotations


class Warnings:
    """Lines in the order they came up.

    Attributes:
        all: every line; programs get them with the answer.
        warnings: those of them that a person should see.
    """

    def __init__(self) -> None:
        self.all: list[str] = []
        self.warnings: list[str] = []

    def add(self, line: str) -> None:
        """Something went wrong and did not matter."""
        self.all.append(line)

    def warn(self, line: str) -> None:
        """Something that will matter, or makes the answer weaker than it should be."""
        self.add(line)
        self.warnings.append(line)
