"""Who is told of which changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.notices.addresses import MAIL, is_address
from publisher.notices.memory import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.notices.addresses import Webhook
    from publisher.notices.changes import StateChange

_MOST_OF_OWNER = 3


@dataclass(frozen=True)
class Recipients:
    """All who are told.

    Attributes:
        operators: addresses that are told of every change.
        owners: owner in the list -> address. An owner who is an address needs no line here.
        webhooks: where every change is posted to.
        mail: whether mail can be sent.
    """

    operators: Sequence[str] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    webhooks: Sequence[Webhook] = ()
    mail: bool = False

    def notices(self, changes: Sequence[StateChange], now: int) -> list[Notice]:
        """Return one notice for each recipient whom the changes concern."""
        if not changes:
            return []
        found: dict[tuple[str, str], list[StateChange]] = {(hook.form, hook.id): list(changes) for hook in self.webhooks}
        if self.mail:
            found |= {(MAIL, address): list(changes) for address in self.operators}
            for change in changes:
                for address in self._addresses(change.owner):
                    if address not in self.operators:
                        found.setdefault((MAIL, address), []).append(change)
        return [Notice(channel, recipient, tuple(about), now) for (channel, recipient), about in found.items()]

    def _addresses(self, owner: str) -> list[str]:
        if owner in self.owners:
            return [self.owners[owner]]
        return [word for word in owner.replace(",", " ").split() if is_address(word)][:_MOST_OF_OWNER]
