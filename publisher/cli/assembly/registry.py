"""Assembles the intake, that is the connections to all registries, from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.net.addresses import AddressPolicy
from publisher.net.retry import RetryPolicy
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.intake import Intake
from publisher.registry.blobs.copies import memory_room
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import anonymous, docker_credentials
from publisher.registry.transport import RegistryTimeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.net.server_dates import ServerDates
    from publisher.registry.credentials import Credentials
    from publisher.settings.settings import PublisherSettings
    from publisher.system.progress import Display

    FindCredentials = Callable[[str], Credentials | None]


def make_intake(
    settings: PublisherSettings, display: Display, *, dates: ServerDates | None = None, discreet: bool = False
) -> Intake:
    """Return the intake: registries are asked with the operator's credentials and mirrors, public access is checked without.

    Args:
        settings: the settings.
        display: shows the progress.
        dates: gets the dates of registries' responses.
        discreet: whether errors are shown to somebody who proposed the images, see :class:`AddressPolicy`.
    """
    timeouts = RegistryTimeouts(small=settings.request_deadline, slowest=settings.slowest_fetch)
    find_credentials = docker_credentials()

    def make_client(credentials: FindCredentials, mirrors: Mapping[str, Sequence[str]]) -> RegistryClient:
        return RegistryClient(
            insecure=settings.insecure_registries,
            credentials=credentials,
            mirrors=mirrors,
            mirror_tags=settings.mirror_tags,
            timeouts=timeouts,
            retry=RetryPolicy(max_retry_after=settings.longest_pause),
            concurrency=settings.registry_concurrency,
            rates=settings.rates,
            dates=dates,
            networks=settings.allowed_networks,
            discreet=discreet,
            federation=settings.federation,
        )

    return Intake(
        lambda: make_client(find_credentials, settings.mirrors),
        lambda: BlobStore(settings.state / "blobs", limits=settings.limits, copies=memory_room(settings.state)),
        display,
        public=lambda: make_client(anonymous, {}),
        verifier=BundleVerifier(settings.sigstore_root, AddressPolicy(networks=settings.allowed_networks)),
        private_images=settings.private_images == "allowed",
    )
