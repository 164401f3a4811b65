"""A name server that a test passes in, in place of the host's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    from collections.abc import Sequence


class NameServer(AbstractResolver):
    """A name server that answers with these addresses, one group after the other; the last one repeats."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked += 1
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family or 2, proto=6, flags=0) for address in addresses
        ]

    async def close(self) -> None:
        pass
