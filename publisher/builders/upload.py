"""The upload of a SIF by the job that has built it, with the token of its order."""

from __future__ import annotations

import asyncio
import ipaddress
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import TransientError
from publisher.targets.pelican.content import UploadStream, from_file
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.federation.endpoint import DirectEndpoint
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport
from publisher.targets.pelican.webdav import WebDavClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.builders.orders import StepOptions
    from publisher.state.built import BuiltImage
    from publisher.targets.origins.job_uploads import UploadGrant
    from publisher.targets.pelican.tokens import TokenScope


def upload(grant: UploadGrant, build: BuiltImage, options: StepOptions) -> str | None:
    """Upload the SIF of a build; return None, or why that was not possible, for people.

    It is tried once: with such a token a name in the incoming area cannot be written a second time, and file transfer remains.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            asyncio.run(_upload(grant, build, options, Path(scratch)))
    except (PublisherError, TransientError) as error:
        return error.reason
    return None


async def _upload(grant: UploadGrant, build: BuiltImage, options: StepOptions, scratch: Path) -> None:
    ca_file = None
    if grant.authority is not None:
        ca_file = scratch / "authority.pem"
        ca_file.write_text(grant.authority)
    timeouts = OriginTimeouts(options.request_deadline, options.request_deadline, options.slowest_fetch)
    policy = AddressPolicy({grant.host}, tuple(map(ipaddress.ip_network, options.networks)))
    transport = OriginTransport(timeouts, Proxies({}), ca_file, policy)
    try:
        endpoint, tokens = DirectEndpoint(OriginAddress(grant.host, grant.prefix, direct=True)), _OneToken(grant.token)
        client = WebDavClient(transport, endpoint, tokens, tokens)
        async with UploadStream(from_file(build.sif, build.sha256, build.size)) as stream:
            await client.put(grant.name, stream, build.size)
    finally:
        await transport.close()


class _OneToken:
    """The token of an order, whatever it is for."""

    def __init__(self, token: str) -> None:
        self._token = token

    def bearer(self, _scopes: Sequence[TokenScope], _base: str) -> str | None:
        """See :meth:`publisher.targets.pelican.tokens.TokenSource.bearer`."""
        return self._token
