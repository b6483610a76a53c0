"""A TCP address behind which the server can change, as that of a database does on a failover.

with Switch(old.port) as switch:
    url = f"postgresql://postgres@127.0.0.1:{switch.port}/agno"
    switch.lead_to(new.port)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

_PIECE = 1 << 16


class Switch:
    """Forwards connections to a port of this machine, in a thread of its own; a context manager.

    Attributes:
        port: where it listens.
        connections: how many it has accepted.

    """

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.connections = 0
        self._upstream: int | None = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="switch")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Break all connections and stop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def lead_to(self, upstream: int | None) -> None:
        """Break all connections and lead new ones to another port; None refuses them."""
        asyncio.run_coroutine_threadsafe(self._break(upstream), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _break(self, upstream: int | None) -> None:
        self._upstream = upstream
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._break(None)
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self._upstream is None:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._writers.add(back)
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:  # nobody there, or gone
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
