"""Assembles an origin in a Pelican federation from the settings. Imported only where there is one, because of aiohttp."""

from __future__ import annotations

import os
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.state import signing
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.cli_upload import PROGRAM
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims
from publisher.targets.pelican.tokens import EnvironmentTokens, FileTokens
from publisher.targets.pelican.transport import OriginTimeouts

if TYPE_CHECKING:
    from publisher.settings.settings import PublisherSettings
    from publisher.targets.pelican.federation.address import OriginAddress
    from publisher.targets.pelican.tokens import TokenSource


def make_pelican_origin(settings: PublisherSettings, target: OriginAddress) -> PelicanOrigin:
    """Return the origin at an address.

    Raises:
        UsageError: settings for tokens or uploads contradict each other.
    """
    if target.direct and settings.uploads == "pelican":
        raise UsageError(
            "the pelican command can only upload to a federation, not to an https:// origin",
            hint="write origin as pelican://FEDERATION/PREFIX",
        )
    options = UploadOptions(
        tokens=make_tokens(settings),
        removal_tokens=None if settings.removal_token_file is None else FileTokens(settings.removal_token_file),
        allowed_hosts=settings.origin_hosts,
        ca_file=settings.origin_authority,
        networks=settings.allowed_networks,
        timeouts=OriginTimeouts(settings.request_deadline, settings.request_deadline, settings.slowest_transfer),
        proxies=urllib.request.getproxies_environment(),
        checksums=settings.origin_checksums,
        pelican_program=PROGRAM if settings.uploads == "pelican" else None,
    )
    return PelicanOrigin(target if target.host else replace(target, host=settings.federation), options)


def make_tokens(settings: PublisherSettings) -> TokenSource:
    """Return the source of tokens for the origin: minted here, from a file, or from the environment."""
    if settings.token_key is None:
        return EnvironmentTokens(os.environ) if settings.token_file is None else FileTokens(settings.token_file)
    if settings.token_file is not None or settings.token_issuer is None:
        raise UsageError("token_key needs token_issuer, and cannot be combined with token_file")
    claims = TokenClaims(settings.token_issuer, base=settings.token_base)
    return MintedTokens(signing.read_private_key(settings.token_key), settings.token_key_id, claims, time.time)
