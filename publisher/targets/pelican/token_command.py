"""Tokens that a program of the operator's issues, such as a wrapper around htgettoken or an issuer's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import CommandError, OriginError
from publisher.system import command
from publisher.targets.pelican.tokens import scope_claim, validated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.targets.pelican.tokens import TokenScope

_DEADLINE = 120.0  # seconds


class CommandTokens:
    """A source that runs a program for each token: its arguments are the scopes and the seconds of life, its output the token.

    Args:
        program: path or name of the program.
        life: seconds that a token is to be valid for.
        base: the path that scopes are relative to; the namespace's own if None.
    """

    def __init__(self, program: str, life: int, base: str | None = None) -> None:
        self._program = program
        self._life = life
        self._base = base

    def bearer(self, scopes: Sequence[TokenScope], base: str) -> str | None:
        """See :meth:`publisher.targets.pelican.tokens.TokenSource.bearer`.

        Raises:
            OriginError: the program fails, or prints something else than a token.
        """
        claim = scope_claim(scopes, base if self._base is None else self._base)
        try:
            said = command.run([self._program, claim, str(self._life)], deadline=_DEADLINE)
        except CommandError as error:
            raise OriginError(f"there is no token: {error.reason}", hint=error.hint) from None
        return validated(said.stdout.decode("ascii", "replace").strip(), f"the output of {self._program}")
