"""The expected failures of the code that publisher and execution point share, and the base class of the resolver's errors."""

from __future__ import annotations


class ExpectedError(Exception):
    """An expected failure: a one-line ``reason`` that says what happened, and a ``hint`` with the next step (or None).

    ``exit_code`` is the exit status of the command: 1 for a problem that the user can fix, 2 for wrong usage or configuration,
    4 for a problem of the host or the network.
    """

    exit_code = 4

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        """Return one line: ``reason (hint)``."""
        return " ".join((self.reason if self.hint is None else f"{self.reason} ({self.hint})").split())


class InvalidReferenceError(ExpectedError):
    """A text that is not an image reference."""

    exit_code = 1


class ManifestError(ExpectedError):
    """A manifest that cannot be trusted or read because of its signature, repository, hash, schema or age."""
