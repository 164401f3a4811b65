"""The image of jobs that name none: drawn once for each pilot from what the site configured and this host can run. Pure."""

from __future__ import annotations

from publisher.contract import units
from publisher.contract.conditions import Conditions
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.contract.conditions import HostCapacity


class ImageOffer:
    """An image that the site offers as the default image, with a weight and conditions.

    Attributes:
        name: the image.
        weight: its share, relative to the other offers that fit the host.
        conditions: what it requires of the host.
    """

    __slots__ = ("conditions", "name", "weight")

    def __init__(self, text: str) -> None:
        """Parse ``WEIGHT%NAME[,CONDITION…]``, for example ``25%htc/almalinux:10,x86-64-v3``.

        :mod:`publisher.contract.conditions` has the conditions.

        Raises:
            ResolverUsageError: the text has another format.
        """
        weight, percent, rest = text.partition("%")
        self.name, comma, conditions = rest.partition(",")
        try:
            self.weight = units.parse_count(weight)
            is_complete = bool(percent and self.name and (conditions or not comma))
        except ValueError:
            is_complete = False
        if not is_complete:
            raise ResolverUsageError(
                f"--default-images {text!r} must be WEIGHT%NAME[,CONDITION…]", hint="for example 25%htc/almalinux:10,x86-64-v3"
            )
        try:
            self.conditions = Conditions.parse(conditions)
        except ValueError as error:
            raise ResolverUsageError(f"--default-images {text!r} must be WEIGHT%NAME[,CONDITION…]: {error}") from None

    def fits(self, host: HostCapacity) -> bool:
        """Return whether the host meets all conditions."""
        return not self.conditions.objections(host)


def choose(offers: Iterable[ImageOffer], host: HostCapacity, draw: float) -> str:
    """Return the name of an image that fits the host, drawn by weight; empty if none fits.

    If the host has a GPU and some of the images require one, only those are drawn from.

    Args:
        offers: as configured.
        host: where the jobs will run.
        draw: a random number, 0 <= draw < 1.
    """
    fitting = [offer for offer in offers if offer.weight and offer.fits(host)]
    fitting = [offer for offer in fitting if offer.conditions.gpu] or fitting
    left = draw * sum(offer.weight for offer in fitting)
    for offer in fitting:
        left -= offer.weight
        if left < 0:
            return offer.name
    return ""
