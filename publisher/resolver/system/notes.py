"""Notes and warnings that accompany an answer."""

from __future__ import annotations


class Warnings:
    """The notes and warnings of one run, in the order in which they came up.

    Attributes:
        all: every line; programs get them together with the answer.
        warnings: the lines that are also shown to a person.
        fork: what this host knows of a fork of the manifest; empty if it knows none.
    """

    def __init__(self) -> None:
        self.all: list[str] = []
        self.warnings: list[str] = []
        self.fork = ""

    def add(self, line: str) -> None:
        """Note a problem that did not change the answer."""
        self.all.append(line)

    def warn(self, line: str) -> None:
        """Note a problem that makes the answer weaker, or will become an error later."""
        self.add(line)
        self.warnings.append(line)
