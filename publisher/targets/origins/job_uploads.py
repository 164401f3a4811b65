"""Uploads of build jobs: each job has a directory of its own in the incoming area, and a token for nothing else.

A token grants creating and reading, so it neither replaces nor deletes what is there, not even what its own job has uploaded.
What a job uploads counts once the publisher has read it; storing the same content then moves it to its name, and sends nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.chunks.reader import FileCopy
from publisher.errors import OriginError, PublisherError
from publisher.net.retry import TransientError
from publisher.targets.pelican.tokens import CREATE, READ, TokenScope
from publisher.targets.pelican.upload import INCOMING

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.net.retry import RetryPolicy
    from publisher.targets.pelican.federation.endpoint import OriginEndpoint
    from publisher.targets.pelican.loop import OriginLoop
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.upload import Uploader
    from publisher.targets.pelican.webdav import WebDavClient

_log = logging.getLogger(__name__)
_SIF = "image.sif"


@dataclass(frozen=True)
class UploadGrant:
    """What a job needs to upload its SIF.

    Attributes:
        host: ``host`` or ``host:port`` of the origin.
        prefix: the path below which the origin stores everything, with ``/`` at its beginning only.
        name: the name of the upload below the prefix.
        token: grants creating and reading in the upload's directory.
        authority: PEM text of a private certificate authority, None for none.
    """

    host: str
    prefix: str
    name: str
    token: str = field(repr=False)
    authority: str | None = field(default=None, repr=False)


class JobUploads:
    """The incoming area of an origin, as build jobs use it.

    The names of all jobs have the same length: to XRootD 5.5.3, a token for ``job1`` is one for all that begins so, as ``job12``.

    Args:
        endpoint: knows the origin.
        client: the publisher's client of the origin.
        uploader: stores what was uploaded.
        tokens: the source of the jobs' tokens.
        loop: runs the requests.
        retries: how often failures that may pass are retried.
        ca_file: PEM file of a private certificate authority, None for none.
    """

    def __init__(
        self,
        endpoint: OriginEndpoint,
        client: WebDavClient,
        uploader: Uploader,
        tokens: TokenSource,
        *,
        loop: OriginLoop,
        retries: RetryPolicy,
        ca_file: Path | None,
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._uploader = uploader
        self._tokens = tokens
        self._loop = loop
        self._retries = retries
        self._ca_file = ca_file

    def grant(self, job: str) -> UploadGrant:
        """Return what a job needs to upload its SIF.

        Raises:
            OriginError: the origin cannot be found now, or there is no token.
        """
        try:
            location = self._loop.run(self._endpoint.locate())
            authority = None if self._ca_file is None else self._ca_file.read_text()
        except TransientError as error:
            raise OriginError(error.reason) from None
        except OSError as error:
            raise OriginError(f"{self._ca_file} cannot be read: {error.strerror}") from None
        directory = f"{location.path}/{INCOMING}/{job}"
        token = self._tokens.bearer([TokenScope(CREATE, directory), TokenScope(READ, directory)], location.base)
        if token is None:
            raise AssertionError("jobs upload only where there are tokens")
        return UploadGrant(location.server.authority, location.path, _name(job), token, authority)

    def sha256(self, job: str, size: int) -> str | None:
        """Return the sha256 (64 hex) of a job's upload, read now; None if there is none of this size."""
        return self._loop.run(self._client.sha256(_name(job), size, self._retries.run))

    def copy(self, job: str, size: int, target: Path) -> str | None:
        """Copy a job's upload into a new file and return its sha256; None if there is none of this size.

        From then on, storing the same content gives the upload its name.

        Raises:
            OriginError: the origin does not send it.
            OSError: the file cannot be written.
        """
        with target.open("xb") as file:
            sha256 = self._loop.run(self._client.sha256(_name(job), size, self._retries.run, FileCopy(file)))
        if sha256 is not None:
            self._uploader.note_verified(_name(job), sha256)
        return sha256

    def discard(self, job: str) -> None:
        """Delete what a job has uploaded, if that is possible now: a later run sweeps what is left."""
        try:
            self._loop.run(self._uploader.discard_directory(f"{INCOMING}/{job}"))
        except (PublisherError, TransientError) as error:
            _log.info("the upload of the job %s cannot be deleted now: %s", job, error)


def _name(job: str) -> str:
    return f"{INCOMING}/{job}/{_SIF}"
