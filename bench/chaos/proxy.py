"""A TCP proxy whose connections can be cut, half-opened and slowed, one or all of them.

It knows bytes only. Cut: both ends get an RST. Half-open: what one end sends (or both) is swallowed and nobody
is told, as where a firewall has lost its state; after a while the RST comes. Slow: the receiving end gets few
bytes a second, and the sender is made to wait for it.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

Way = Literal["up", "down"]  # towards the service, or back
CHUNK_BYTES = 65536
SLOW_BYTES_A_SECOND = 1000
SLOW_TICK_S = 0.1


class Connection:
    """One connection through the proxy."""

    def __init__(self) -> None:
        self.swallowed: frozenset[Way] = frozenset()
        self.slow: frozenset[Way] = frozenset()
        self._writers: list[asyncio.StreamWriter] = []

    async def carry(self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], host: str, port: int) -> None:
        """From both ends to the other, until one of them ends."""
        self._writers = [client[1]]
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
        except OSError:
            self.cut()
            return
        self._writers.append(writer)
        pumps = [
            asyncio.ensure_future(self._pump(client[0], writer, "up")),
            asyncio.ensure_future(self._pump(reader, client[1], "down")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in self._writers:
                end.close()

    def cut(self) -> None:
        """RST to both ends."""
        for writer in self._writers:
            with suppress(OSError):
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                while data and way in self.slow and way not in self.swallowed:
                    part, data = (
                        data[: int(SLOW_BYTES_A_SECOND * SLOW_TICK_S)],
                        data[int(SLOW_BYTES_A_SECOND * SLOW_TICK_S) :],
                    )
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(SLOW_TICK_S)
                if data and way not in self.swallowed:
                    writer.write(data)
                    await writer.drain()


class Proxy:
    """Listens on a port of its own and passes everything on to `port`."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.connections: set[Connection] = set()
        self._upstream_port = port

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0, limit=CHUNK_BYTES)

    @property
    def endpoint(self) -> str:
        """Where a DEALER connects to."""
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """No more."""
        self._server.close()
        for connection in list(self.connections):
            connection.cut()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection()
        self.connections.add(connection)
        try:
            await connection.carry((reader, writer), "127.0.0.1", self._upstream_port)
        finally:
            self.connections.discard(connection)
