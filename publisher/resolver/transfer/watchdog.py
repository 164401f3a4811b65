"""Whether a download comes along: an end by the clock, a least speed, and a thread that sees to both while others wait for bytes.

A server that sends a byte now and then is silent by no time-out of a socket, not even while it sends its headers. So the socket
is watched from outside and shut down.
"""

from __future__ import annotations

import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 30.0  # seconds over which the speed is taken
_LOOK = 0.25  # seconds between two looks


class TransferDeadline:
    """Of one try.

    Args:
        clock: gives seconds that only grow.
        until: reading of it at which the try ends.
        slowest: bytes a second that must come in each window of :data:`WINDOW` seconds, the first included; 0 for none.
    """

    def __init__(self, clock: Callable[[], float], until: float, slowest: float = 0.0) -> None:
        self.until = until
        self._clock = clock
        self._slowest = slowest
        self._received = 0
        self._before = 0
        self._since = clock()

    def add(self, count: int) -> None:
        """So many bytes came."""
        self._received += count

    def left(self) -> float:
        """Seconds until its end, negative after it."""
        return self.until - self._clock()

    def problem(self, early: float = 0.0) -> str | None:
        """Why it is over, None while it comes along; it ends so many seconds early."""
        now = self._clock()
        if now > self.until - early:
            return f"only {self._received} bytes came in time"
        if now - self._since >= WINDOW:
            came = self._received - self._before
            if came < self._slowest * (now - self._since):
                return f"too slow: {came} bytes in {now - self._since:.0f} s"
            self._before, self._since = self._received, now
        return None


class Watchdog:
    """A context manager that shuts a connection down when its pace is lost.

    Args:
        pace: of the try.
        connection: a socket of the connection, to be closed here: not the one that is read, since TLS takes that one over.

    Attributes:
        problem: why it did, None where it did not.
    """

    def __init__(self, pace: TransferDeadline, connection: socket.socket) -> None:
        self.problem: str | None = None
        self._pace = pace
        self._connection = connection
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watchdog:  # noqa: PYI034 - Self is in no library of Python 3.9
        try:
            self._thread.start()
        except RuntimeError:  # a job may have all the threads that its user may have; time-outs of the socket remain
            self._over.set()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            self.problem = self._pace.problem()
            if self.problem is not None:
                try:  # noqa: SIM105 - one import less
                    self._connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed by the other side at the same time
                    pass
                return
