"""A variant of an image: one of several builds that have one name, for the hosts that meet its conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.oci import Platform

if TYPE_CHECKING:
    from publisher.contract.conditions import Conditions
    from publisher.contract.reference import Reference


@dataclass(frozen=True, kw_only=True)
class ImageVariant(Platform):
    """A platform of an image, for some of its hosts only.

    Attributes:
        reference: the image that is built for them.
        conditions: what it requires of a host besides the architecture.
    """

    reference: Reference
    conditions: Conditions

    def __str__(self) -> str:
        """Return the variant for messages: ``linux/amd64,x86-64-v3``."""
        return ",".join(filter(None, (super().__str__(), str(self.conditions))))

    @property
    def platform(self) -> Platform:
        """Return the platform that the image is built for."""
        return Platform(self.os, self.architecture, self.variant)


def plain(platform: Platform) -> Platform:
    """Return a platform as registries know it, without conditions."""
    return platform.platform if isinstance(platform, ImageVariant) else platform
