"""A TCP proxy with a delay, which simulates a distant registry: ``python -m ci.benchmarks.delayed_proxy PORT MILLISECONDS``.

It forwards connections to a loopback port. Data is delayed by half the round trip in each direction and stays in order; the
bandwidth is not limited. It prints its own port.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_CHUNK = 1 << 16


async def main() -> None:
    """Serve until the process is terminated."""
    port, delay = int(sys.argv[1]), float(sys.argv[2]) / 2000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_forward(reader, upstream_writer, delay), _forward(upstream_reader, writer, delay))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()

    def write(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            loop.call_later(delay, write, data)  # equal delays fire in the order in which they were set
    loop.call_later(2 * delay, writer.close)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
