"""The event loop of an origin's client, for a program that is not asynchronous; the first use starts it."""

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
    """Runs coroutines in a background thread; its end, or the program's, ends the loop and closes the transport.

    The coroutines must not refer to the owner of this object, or it would never be collected.
    """

    def __init__(self, transport: OriginTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._background: BackgroundLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; an interrupt cancels it.

        Raises:
            OriginError: all retries failed.
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
    if background.here:  # not in a forked child, where garbage collection ends a copy
        background.submit(transport.close()).result()
