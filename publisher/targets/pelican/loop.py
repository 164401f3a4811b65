"""The network beside a program that is not asynchronous: an event loop that is started by the first use."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.errors import OriginError
from publisher.net.loop import BackgroundLoop
from publisher.net.retry import RetriesExhaustedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from publisher.targets.pelican.transport import OriginTransport

T = TypeVar("T")


class OriginLoop:
    """Runs coroutines for a caller that waits for them; ends, and closes the transport, with its owner or the program.

    What it runs must not refer to its owner.
    """

    def __init__(self, transport: OriginTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._background: BackgroundLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; an interrupt cancels it.

        Raises:
            OriginError: what was asked did not answer, however often it was tried.
        """
        future = self._started().submit(work)
        try:
            return future.result()
        except RetriesExhaustedError as error:
            raise OriginError(error.reason, hint=error.hint) from None
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> BackgroundLoop:
        with self._lock:
            if self._background is None:
                stack = contextlib.ExitStack()
                self._background = stack.enter_context(BackgroundLoop())
                stack.callback(_close, self._background, self._transport)
                weakref.finalize(self, stack.close)
            return self._background


def _close(background: BackgroundLoop, transport: OriginTransport) -> None:
    if background.here:  # and not a forked child's copy, which garbage collection ends there
        background.submit(transport.close()).result()
