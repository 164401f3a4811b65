from __future__ import annotations

from tests.support.machine.no_authorities import no_authorities

__all__ = ["no_authorities"]
