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


def os_reason(error: Exception, said: str = "") -> str:
    """Return why a system call failed: the system's words, and the path unless ``said``, the message before it, has it already.

    Any other exception is returned as text.
    """
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    paths = [path for path in (error.filename, error.filename2) if path is not None and str(path) not in said]
    return " -> ".join(map(str, paths)) + ": " * bool(paths) + error.strerror


class InvalidReferenceError(ExpectedError):
    """A text that is not an image reference."""

    exit_code = 1


class ManifestError(ExpectedError):
    """A manifest that cannot be trusted or read because of its signature, repository, hash, schema or age."""


class ChunkTableError(ExpectedError):
    """A chunk table that is not one, or whose chunks cannot be those of its SIF; the SIF can still be fetched as a whole."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chunk table cannot be used: {reason}")
