"""Expected failures of what publisher and execution point share, and the base of all that the resolver has."""

from __future__ import annotations


class ExpectedError(Exception):
    """An expected failure: one line that says what happened, and ``hint``, the next step (or None).

    ``exit_code`` is what the command ends with: 1 for the user to mend, 2 usage or configuration, 4 host or network.
    """

    exit_code = 4

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        """One line: ``reason (hint)``."""
        return " ".join((self.reason if self.hint is None else f"{self.reason} ({self.hint})").split())


class InvalidReferenceError(ExpectedError):
    """A text that is no image reference."""

    exit_code = 1


class ManifestError(ExpectedError):
    """A manifest that cannot be trusted or read: signature, repository, hash, schema or age."""
