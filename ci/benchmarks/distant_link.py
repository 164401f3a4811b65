"""A TCP proxy like a long and narrow link: ``python -m ci.benchmarks.distant_link PORT MILLISECONDS MEGABITS``.

It forwards connections to a loopback port. Data is delayed by half the round trip in each direction and stays in order, and what
the server sends is limited to so many megabits a second, for all connections together. A connection is established at once, so
the first of its round trips is missing. It prints its own port.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_CHUNK = 1 << 14
_AHEAD = 0.05  # seconds of data that are read before the link can carry them, as a router's buffer would hold


class _Link:
    """One direction of the link.

    Args:
        delay: seconds.
        rate: bytes a second; 0 for no limit.
    """

    def __init__(self, delay: float, rate: float) -> None:
        self._delay = delay
        self._rate = rate
        self._free = 0.0  # when the link has carried all that was sent so far

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward all data of a connection, and then its end."""
        loop = asyncio.get_running_loop()

        def write(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(data)

        arrival = 0.0
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                self._free = max(self._free, loop.time()) + (len(data) / self._rate if self._rate else 0.0)
                arrival = self._free + self._delay
                loop.call_at(arrival, write, data)
                await asyncio.sleep(max(0.0, self._free - loop.time() - _AHEAD))
        loop.call_at(max(arrival, loop.time()) + self._delay, writer.close)


async def main() -> None:
    """Serve until the process is terminated."""
    port, delay, rate = int(sys.argv[1]), float(sys.argv[2]) / 2000, float(sys.argv[3]) * 125_000
    there, back = _Link(delay, 0), _Link(delay, rate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(there.forward(reader, upstream_writer), back.forward(upstream_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
