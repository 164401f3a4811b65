"""The deadline and the minimum speed of a transfer, and a watchdog thread that enforces them while others wait for bytes.

A server that sends a byte now and then never runs into the timeout of a socket, not even while it sends its headers. So another
thread watches the socket and shuts it down.
"""

from __future__ import annotations

import socket
import threading

from publisher.contract.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 30.0  # seconds over which the speed is measured
_INTERVAL = 0.25  # seconds between two checks


class TransferDeadline:
    """The deadline of one attempt of a transfer, and its minimum speed.

    Args:
        clock: returns monotonic seconds.
        until: reading of the clock at which the attempt ends.
        slowest: bytes a second that must arrive in each window of :data:`WINDOW` seconds, the first included; 0 for no minimum.
    """

    def __init__(self, clock: Callable[[], float], until: float, slowest: float = 0.0) -> None:
        self.until = until
        self._clock = clock
        self._slowest = slowest
        self._received = 0
        self._received_before = 0
        self._window_start = clock()

    def add(self, count: int) -> None:
        """Count received bytes."""
        self._received += count

    def left(self) -> float:
        """Return the seconds that are left, negative after the deadline."""
        return self.until - self._clock()

    def problem(self, margin: float = 0.0) -> str | None:
        """Return why the attempt must end, or None if it may go on. It ends ``margin`` seconds before its deadline."""
        now = self._clock()
        if now > self.until - margin:
            return f"only {format_size(self._received)} received in time"
        if now - self._window_start >= WINDOW:
            count = self._received - self._received_before
            if count < self._slowest * (now - self._window_start):
                return f"too slow: {format_size(count)} in {now - self._window_start:.0f} s"
            self._received_before, self._window_start = self._received, now
        return None


class Watchdog:
    """A context manager that shuts a connection down when its deadline has passed.

    Args:
        deadline: the deadline of the attempt.
        connection: a duplicate of the connection's socket, closed here. It must be a duplicate, since TLS takes the original
            over.

    Attributes:
        problem: why the connection was shut down, None if it was not.
    """

    def __init__(self, deadline: TransferDeadline, connection: socket.socket) -> None:
        self.problem: str | None = None
        self._deadline = deadline
        self._connection = connection
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:  # noqa: PYI034 - Self is in no library of Python 3.9
        try:
            self._thread.start()
        except RuntimeError:  # the user's limit of threads may be reached; the timeouts of the socket remain
            self._stop.set()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
        self._connection.close()

    def _watch(self) -> None:
        """Check the deadline until the context ends or the deadline has passed."""
        while not self._stop.wait(_INTERVAL):
            self.problem = self._deadline.problem()
            if self.problem is not None:
                try:  # noqa: SIM105 - one import less
                    self._connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the other side closed it at the same time
                    pass
                return
