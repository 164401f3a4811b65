"""A registry far away: ``python -m ci.benchmarks.far PORT MILLISECONDS`` passes TCP on to that loopback port, later.

What comes in leaves again half the round trip later, in both directions, and in order; nothing is slowed down otherwise. Prints
its own port.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_CHUNK = 1 << 16


async def main() -> None:
    """Serve until it is ended."""
    port, delay = int(sys.argv[1]), float(sys.argv[2]) / 2000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, far_writer, delay), _pass_on(far_reader, writer, delay))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()

    def later(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            loop.call_later(delay, later, data)  # equal delays fire in the order in which they were set
    loop.call_later(2 * delay, writer.close)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
