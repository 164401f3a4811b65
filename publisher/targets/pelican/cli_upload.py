"""Uploads by the ``pelican`` command, if a site prefers it to this program's own.

The command can store files but not rename them. It brings a file into the incoming area; every other step of an upload stays
the same. The token reaches the command in a file, never in its arguments or its environment.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError, OriginError
from publisher.net.retry import TransientError
from publisher.system import command
from publisher.targets.pelican.content import UploadStream
from publisher.targets.pelican.tokens import CREATE, READ, TokenScope, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.federation.address import OriginAddress
    from publisher.targets.pelican.federation.endpoint import OriginEndpoint
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginTimeouts
    from publisher.targets.pelican.webdav import WebDavClient

PROGRAM = "pelican"
_POLL = 0.05  # seconds
_RETRYABLE = 11  # the exit status if a retry may help (Pelican's documentation, "exit codes")


class PelicanUpload:
    """Uploads by the ``pelican`` command.

    Args:
        address: the federation and the prefix.
        endpoint: knows what path the scopes of tokens are relative to.
        tokens: the tokens that the command sends.
        timeouts: how long an upload may take.
        ca_file: PEM file of a private certificate authority, None for none.
        program: the command's name or path.
    """

    def __init__(
        self,
        address: OriginAddress,
        endpoint: OriginEndpoint,
        tokens: TokenSource,
        timeouts: OriginTimeouts,
        ca_file: Path | None,
        *,
        program: str = PROGRAM,
    ) -> None:
        self._address = address
        self._endpoint = endpoint
        self._tokens = tokens
        self._timeouts = timeouts
        self._ca_file = ca_file
        self._program = program

    async def send(self, _client: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """See :meth:`publisher.targets.pelican.upload.UploadMethod.send`."""
        async with UploadStream(content) as stream:
            async for _ in stream.chunks():  # the command's checksum is of what it reads, ours of what it should have read
                pass
        stream.verify()
        path = f"{self._address.prefix}/{name}"
        scopes = [TokenScope(CREATE, path), TokenScope(READ, path)]
        token = self._tokens.bearer(scopes, (await self._endpoint.locate()).base)
        await self._run_cancellable([str(content.path), f"pelican://{self._address.host}{path}"], token, content.size)
        return stream

    async def _run_cancellable(self, arguments: list[str], token: str | None, size: int) -> None:
        """Run the command in a thread; a cancellation kills the command and waits for its end."""
        kills: list[Callable[[], None]] = []
        running = asyncio.ensure_future(asyncio.to_thread(self._run, arguments, token, size, kills.append))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                for kill in kills:
                    kill()
                await asyncio.wait([running], timeout=_POLL)
            raise

    def _run(self, arguments: list[str], token: str | None, size: int, on_start: Callable[[Callable[[], None]], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="publisher-pelican-") as home:
            token_option = []
            if token is not None:
                path = Path(home, "token")
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(token)
                token_option = ["--token", str(path)]
            env = {"HOME": home} | ({} if self._ca_file is None else {"SSL_CERT_FILE": str(self._ca_file)})
            argv = [self._program, "object", "put", *token_option, *arguments]
            try:
                command.run(argv, deadline=self._timeouts.for_size(size), env=env, on_start=on_start)
            except CommandError as error:
                reason = redact(error.reason, token)
                if error.status == _RETRYABLE:
                    raise TransientError(reason) from None
                raise OriginError(reason, hint=error.hint) from None
