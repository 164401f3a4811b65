"""Uploads by the ``pelican`` command, where a site prefers it to this program's own.

The command can store and cannot rename: it brings a file into the incoming area, and everything else about an upload stays as
it is. Its arguments are these and no others; the token reaches it in a file, never in its arguments or its environment.
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
from publisher.targets.pelican import tokens
from publisher.targets.pelican.content import UploadStream
from publisher.targets.pelican.tokens import CREATE, READ, TokenScope

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.pelican.address import OriginAddress
    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.endpoint import OriginEndpoint
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginTimeouts
    from publisher.targets.pelican.webdav import WebDavClient

PROGRAM = "pelican"
_LOOK = 0.05  # seconds
_RETRYABLE = 11  # what it exits with where another try may help (its documentation, "exit codes")


class PelicanUpload:
    """The command.

    Args:
        address: of the federation and the prefix.
        place: tells what the scopes of tokens are relative to.
        tokens: what it shows.
        deadlines: how long an upload may take.
        authority: PEM file of a private authority, None for none.
        program: its name or path.
    """

    def __init__(
        self,
        address: OriginAddress,
        place: OriginEndpoint,
        tokens: TokenSource,
        deadlines: OriginTimeouts,
        authority: Path | None,
        *,
        program: str = PROGRAM,
    ) -> None:
        self._address = address
        self._place = place
        self._tokens = tokens
        self._deadlines = deadlines
        self._authority = authority
        self._program = program

    async def carry(self, _store: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """See :meth:`publisher.targets.pelican.upload.Carrier.carry`."""
        async with UploadStream(content) as sending:
            async for _ in sending.pieces():  # its own checksum is of what it reads; ours is of what it should have read
                pass
        sending.check()
        path = f"{self._address.prefix}/{name}"
        rights = [TokenScope(CREATE, path), TokenScope(READ, path)]
        token = self._tokens.bearer(rights, (await self._place.where()).base)
        await self._stoppable([str(content.path), f"pelican://{self._address.host}{path}"], token, content.size)
        return sending

    async def _stoppable(self, words: list[str], token: str | None, size: int) -> None:
        """Run the command in a thread; when that is not waited for any more the command is killed, and what it did has ended."""
        kills: list[Callable[[], None]] = []
        running = asyncio.ensure_future(asyncio.to_thread(self._run, words, token, size, kills.append))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                for kill in kills:
                    kill()
                await asyncio.wait([running], timeout=_LOOK)
            raise

    def _run(self, words: list[str], token: str | None, size: int, started: Callable[[Callable[[], None]], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="publisher-pelican-") as home:
            shown = []
            if token is not None:
                path = Path(home, "token")
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(token)
                shown = ["--token", str(path)]
            env = {"HOME": home} | ({} if self._authority is None else {"SSL_CERT_FILE": str(self._authority)})
            argv = [self._program, "object", "put", *shown, *words]
            try:
                command.run(argv, deadline=self._deadlines.whole(size), env=env, on_start=started)
            except CommandError as error:
                reason = tokens.hidden(error.reason, token)
                if error.status == _RETRYABLE:
                    raise TransientError(reason) from None
                raise OriginError(reason, hint=error.hint) from None
