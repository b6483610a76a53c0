"""The server: listening sockets, and connections with limits to their number and time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.core.errors import ListenError
from exporter.service.web.app import Application

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's line and headers; longer ones are answered with 400."""
MAX_CONNECTIONS: Final = 256
"""Open connections. One more takes the place of the one that is idle longest; while all are busy, it gets a 503."""
BACKLOG: Final = 64
"""Connections that wait to be accepted; as often asyncio tries to, each second, when no descriptor is left."""
KEEP_ALIVE: Final = 65
"""Seconds an idle connection is kept: longer than Prometheus's default interval of one minute."""
MAX_REQUEST_SECONDS: Final = 90.0
"""A connection is cut so long after its last request began: slow senders and readers hold no place for ever."""
STOP_SECONDS: Final = 2.0
"""What `Server.stop` takes at most."""

_LISTEN_HELP: Final = {
    errno.EADDRINUSE: "the address is already in use; is another exporter running?",
    errno.EACCES: "permission denied; ports below 1024 need a privilege",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}
_MAX_PORT: Final = 65535


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; an empty host or `::` means every interface, IPv6 and IPv4, and port 0 a free port.

    A name with several addresses is served on the first that can be had, IPv4 first. Raises ListenError.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= _MAX_PORT:
        raise ListenError(f"cannot listen on {where}: the port must lie between 0 and {_MAX_PORT}")
    failure = OSError(errno.EADDRNOTAVAIL, "")
    for family, address in _addresses(host, port, where):
        try:
            # Listening at once: until one of them does, two sockets may share an address.
            listener = socket.create_server(
                address, family=family, dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6()
            )
            # asyncio sets this on sockets of protocol TCP; those of create_server have protocol 0, and an answer in two
            # writes would wait 40 ms for the client's delayed ACK. Connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            failure = error
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                break
        else:
            return listener
    help_text = _LISTEN_HELP.get(failure.errno or 0, failure.strerror or str(failure))
    raise ListenError(f"cannot listen on {where}: {help_text}") from failure


def _addresses(host: str, port: int, where: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if not host:
        every = (socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what an empty host asks for
        return [(socket.AF_INET6, ("::", port)), every] if socket.has_dualstack_ipv6() else [every]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {where}: {host!r} is neither an address nor a known host") from error
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return [(info[0], info[4]) for info in found]


class _Connection(H11Protocol):
    """uvicorn's connection with a limit to its time: uvicorn itself waits for ever for a request to be complete."""

    _limit: asyncio.TimerHandle | None = None
    since = 0.0
    """when it was made or its last request began, by the clock of the event loop"""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()
        self._start_clock()

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, _Connection) and one is not self]
        if idle := [one for one in others if one.is_idle]:
            min(idle, key=lambda one: one.since).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered: none has come, or its answer is sent to the last byte."""
        return self.conn.our_state is h11.IDLE and not self.transport.get_write_buffer_size()

    @override
    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._start_clock()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._stop_clock()
        self.since = self.loop.time()
        self._limit = self.loop.call_later(MAX_REQUEST_SECONDS, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()


class _Uvicorn(uvicorn.Server):
    """A uvicorn server inside a daemon: signals are the daemon's, and who started it can wait for it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class Server:
    """Serves an application on a listening socket, in the running event loop. Installs no signal handlers."""

    def __init__(self, app: Application, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,  # anybody on the network can cause warnings
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Port of the listening socket."""
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        """Return once requests are answered. Raises what keeps the server from starting."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="web")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await self._task

    async def stop(self) -> None:
        """Take no more connections, let running answers end, and cut what is left after STOP_SECONDS."""
        if self._task is None:
            self._listener.close()
            return
        self._server.should_exit = True
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if not self._task.done():
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
