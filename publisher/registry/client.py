"""The registry client: what a tag points at, manifests and blobs, from any OCI distribution registry.

A body whose digest is not the one asked for is never handed out. Nothing an unreachable, overloaded or confused registry says
is mistaken for "there is no such image": that is a :class:`NotFoundError`, everything else an :class:`UnavailableError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Self, TypeVar

from yarl import URL

from publisher import oci
from publisher.errors import BlobError, DeniedError, NotFoundError, PublisherError, UnavailableError
from publisher.registry import verdict
from publisher.registry.authority import Authority
from publisher.registry.credentials import anonymous
from publisher.registry.patience import Patience, TransientError, WornOutError
from publisher.registry.transport import Deadlines, Transport
from publisher.resolver.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from types import TracebackType

    from publisher.registry.credentials import Credentials
    from publisher.registry.transport import Answer
    from publisher.resolver.reference import Reference

    Sink = Callable[[bytes], Awaitable[None]]

T = TypeVar("T")

_HUB_API = "registry-1.docker.io"
_ACCEPT = f"{oci.OCI_INDEX}, {oci.DOCKER_LIST}, {oci.OCI_MANIFEST}, {oci.DOCKER_MANIFEST}, */*"
"""As containerd asks; ``*/*`` so that what is not supported is refused by its name instead of being "not found"."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_FAILURES = 5  # requests in a row, all their tries used up, after which a registry is left alone
_PAUSE = 60.0  # seconds of that
_OK, _PARTIAL, _UNAUTHORIZED, _ABSENT, _NO_SUCH_METHOD = 200, 206, 401, 404, 405


class RegistryClient:
    """An asynchronous context manager; safe for many tasks of one event loop.

    Args:
        insecure: registries (exact ``host:port``) that speak plain http.
        credentials: from a registry to its credentials, None for nobody's.
        deadlines: how long connecting, waiting and whole requests may take.
        patience: what is tried again, and how often.
        concurrency: requests in flight per registry, transfers of blobs included.
        clock: seconds, monotonic (for tokens' ends).
    """

    def __init__(
        self,
        *,
        insecure: frozenset[str] = frozenset(),
        credentials: Callable[[str], Credentials | None] = anonymous,
        deadlines: Deadlines | None = None,
        patience: Patience | None = None,
        concurrency: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._insecure = insecure
        self._look_up = credentials
        self._deadlines = deadlines or Deadlines()
        self._patience = patience or Patience()
        self._clock = clock
        self._failed: defaultdict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(concurrency))

    async def __aenter__(self) -> Self:
        self._transport = Transport(self._deadlines)
        self._authority = Authority(self._transport, self._base, self._look_up, self._clock)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._transport.close()

    async def head(self, reference: Reference) -> oci.Descriptor:
        """What a reference points at now: one HEAD, or a GET where the registry's HEAD does not tell the digest.

        Returns:
            Media type and digest of an index or manifest; the size is 0 where the registry does not say.

        Raises:
            NotFoundError, DeniedError, UnavailableError: as their names say.
        """
        target = reference.digest or reference.tag or "latest"
        with about(reference):
            found = await self._patiently(reference.registry, lambda: self._head(reference, target))
            if found is None:
                media_type, body = await self._patiently(reference.registry, lambda: self._manifest(reference, target))
                found = oci.Descriptor(media_type, _digest(body), len(body))
            if reference.digest not in (None, found.digest):
                raise UnavailableError(f"{reference.registry} answers with {found.digest} for another digest")
            return found

    async def manifest(self, reference: Reference, digest: str) -> tuple[str, bytes]:
        """Content-Type and body of the index or manifest with this digest, whatever tag or digest the reference has.

        Raises:
            BlobError: the registry gives another body, twice.
            NotFoundError, DeniedError, UnavailableError: as their names say.
        """

        async def attempt() -> tuple[str, bytes]:
            media_type, body = await self._manifest(reference, digest)
            if _digest(body) != digest:
                raise BlobError(f"{reference.registry} gives a manifest that is not {digest}")
            return media_type, body

        with about(reference):
            try:
                return await self._patiently(reference.registry, attempt)
            except BlobError:
                return await self._patiently(reference.registry, attempt)

    async def blob(self, reference: Reference, descriptor: oci.Descriptor, sink: Sink, offset: int = 0) -> None:
        """Hand a blob's bytes from ``offset`` on to ``sink``, in order and each once, whatever breaks on the way.

        The bytes are counted here; their digest is the receiver's business, who alone sees all of them.

        Raises:
            BlobError: there are more bytes than the descriptor says.
            NotFoundError, DeniedError: as their names say.
            UnavailableError: no progress any more, or slower than the slowest transfer allowed.
        """
        position = offset

        async def counted(chunk: bytes) -> None:
            nonlocal position
            position += len(chunk)
            if position > descriptor.size:
                raise BlobError(f"{reference.registry} gives more than the {descriptor.size} bytes of {descriptor.digest}")
            await sink(chunk)

        async def attempt() -> None:
            if position < descriptor.size:
                await self._transfer(reference, descriptor, position, counted)
            if position < descriptor.size:
                raise TransientError(f"{reference.registry} gives only {position} of the {descriptor.size} bytes of a blob")

        allowed = self._deadlines.small + descriptor.size / self._deadlines.slowest
        with about(reference):
            try:
                async with asyncio.timeout(allowed):
                    await self._patiently(reference.registry, attempt, lambda: position)
            except TimeoutError:
                reason = f"{reference.registry} gave only {position} of {descriptor.size} bytes of a blob in {allowed:.0f} s"
                raise UnavailableError(reason) from None

    async def _head(self, reference: Reference, target: str) -> oci.Descriptor | None:
        async with self._open("HEAD", reference, f"manifests/{target}", {"Accept": _ACCEPT}) as answer:
            if answer.status == _NO_SUCH_METHOD or (answer.status == _ABSENT and not verdict.says_registry(answer)):
                return None
            await verdict.check(answer, reference.registry, _named(reference, target))
            digest = answer.headers.get("Docker-Content-Digest", "")
            if not _DIGEST.fullmatch(digest):
                return None
            length = answer.headers.get("Content-Length", "0")
            return oci.Descriptor(_media_type(answer), digest, int(length) if length.isdecimal() else 0)

    async def _manifest(self, reference: Reference, target: str) -> tuple[str, bytes]:
        async with self._open("GET", reference, f"manifests/{target}", {"Accept": _ACCEPT}) as answer:
            await verdict.check(answer, reference.registry, _named(reference, target))
            return _media_type(answer), await answer.body(oci.MANIFEST_LIMIT)

    async def _transfer(self, reference: Reference, descriptor: oci.Descriptor, position: int, sink: Sink) -> None:
        headers = {"Range": f"bytes={position}-"} if position else {}
        async with self._open("GET", reference, f"blobs/{descriptor.digest}", headers, small=False) as answer:
            await verdict.check(answer, reference.registry, f"blob {descriptor.digest}", (_OK, _PARTIAL))
            passed_over = position if answer.status == _OK else _check_start(answer, position)
            while chunk := await answer.read():
                if passed_over < len(chunk):
                    await sink(chunk[passed_over:] if passed_over else chunk)
                passed_over = max(0, passed_over - len(chunk))

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, reference: Reference, path: str, headers: Mapping[str, str], *, small: bool = True
    ) -> AsyncIterator[Answer]:
        """A request with what the registry wants to see; a 401 is answered once with something better."""
        registry, repository = reference.registry, reference.repository
        url = self._base(registry).joinpath("v2", *repository.split("/"), *path.split("/"))
        sent: list[str | None] = []
        async with self._slots[registry]:
            self._check_health(registry)
            while (shown := await self._authority.header(registry, repository)) not in sent:
                sent.append(shown)
                full = {**headers, **({} if shown is None else {"Authorization": shown})}
                async with self._transport.open(method, url, full, small=small) as answer:
                    if answer.status != _UNAUTHORIZED or answer.away:
                        yield answer
                        return
                    if len(sent) > 1:
                        break
                    self._authority.learn(registry, repository, answer.headers.getall("WWW-Authenticate", []), shown)
            raise await self._authority.denied(registry, repository)

    async def _patiently(self, registry: str, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int] = lambda: 0) -> T:
        try:
            result = await self._patience.run(attempt, gained)
        except WornOutError:
            self._failed[registry] = (self._failed[registry][0] + 1, self._clock())
            raise
        except (NotFoundError, DeniedError):
            self._failed.pop(registry, None)
            raise
        self._failed.pop(registry, None)
        return result

    def _check_health(self, registry: str) -> None:
        """Thousands of references to a registry that is down shall not wait for it one after the other."""
        failed, last = self._failed[registry]
        if failed >= _FAILURES and self._clock() - last < _PAUSE:
            raise UnavailableError(f"{registry} failed {failed} times in a row and is left alone for now")

    def _base(self, registry: str) -> URL:
        scheme = "http" if registry in self._insecure else "https"
        try:
            return URL(f"{scheme}://{_HUB_API if registry == DOCKER_HUB else registry}")
        except ValueError:
            raise UnavailableError(f"{registry} is no registry that could be asked: not a host, or no such port") from None


def _check_start(answer: Answer, position: int) -> int:
    """Refuse the wrong part of a blob (RFC 9110, section 14.4); returns the bytes to pass over, none."""
    if not re.match(rf"bytes {position}-", answer.headers.get("Content-Range", "")):
        raise UnavailableError(f"{answer.host} gives another part of a blob than it was asked for")
    return 0


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _named(reference: Reference, target: str) -> str:
    return f"{reference.repository}{'@' if ':' in target else ':'}{target}"


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@contextlib.contextmanager
def about(reference: Reference) -> Iterator[None]:
    """Errors that leave here say which image they are about."""
    try:
        yield
    except PublisherError as error:
        error.image = error.image or str(reference)
        raise
