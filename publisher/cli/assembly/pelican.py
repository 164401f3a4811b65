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
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.pelican.cli_upload import PROGRAM
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims
from publisher.targets.pelican.token_command import CommandTokens
from publisher.targets.pelican.tokens import EnvironmentTokens, FileTokens
from publisher.targets.pelican.transport import OriginTimeouts

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.settings.settings import PublisherSettings
    from publisher.targets.origins.base import Origin
    from publisher.targets.origins.job_uploads import JobUploads
    from publisher.targets.pelican.federation.address import OriginAddress
    from publisher.targets.pelican.tokens import TokenSource

_REQUEST_LIFE = 600  # seconds of a token for one request


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
    return _minted(settings, settings.token_key, _REQUEST_LIFE)


def make_job_uploads(settings: PublisherSettings, origin: Origin, life: int) -> JobUploads | None:
    """Return where build jobs upload their SIFs; None if nothing issues tokens for them, or the origin is a directory.

    Args:
        settings: the settings.
        origin: the origin of the run.
        life: seconds that a job's token is valid for.
    """
    first = origin.first if isinstance(origin, ReplicatedOrigin) else origin
    if not isinstance(first, PelicanOrigin):
        return None
    if settings.condor_token_command is not None:
        return first.job_uploads(CommandTokens(settings.condor_token_command, life, settings.token_base))
    return None if settings.token_key is None else first.job_uploads(_minted(settings, settings.token_key, life))


def _minted(settings: PublisherSettings, key: Path, life: int) -> MintedTokens:
    if settings.token_file is not None or settings.token_issuer is None:
        raise UsageError("token_key needs token_issuer, and cannot be combined with token_file")
    claims = TokenClaims(settings.token_issuer, base=settings.token_base, life=life)
    return MintedTokens(signing.read_private_key(key), settings.token_key_id, claims, time.time)
