"""The server: connections with limits to their number and time, plain or with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.service.web.live import LiveWebConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's line and headers; longer ones are answered with 400."""
MAX_CONNECTIONS: Final = 256
"""Open connections. One more replaces the connection that is idle longest; while all are busy, it gets a 503."""
BACKLOG: Final = 64
"""Connections that wait to be accepted; as often asyncio tries to, each second, when no descriptor is left."""
KEEP_ALIVE: Final = 65
"""Seconds an idle connection is kept: longer than Prometheus's default interval of one minute."""
MAX_REQUEST_SECONDS: Final = 90.0
"""A connection is closed so long after its last request began, so slow clients do not keep it for ever."""
HANDSHAKE_SECONDS: Final = 10.0
"""Most seconds for a client's TLS handshake."""
CLOSING_SECONDS: Final = 10.0
"""Most seconds for a client to take the rest of an answer, and to agree to the end of TLS."""
STOP_SECONDS: Final = 2.0
"""Most seconds of `Server.stop`."""


class _Config(uvicorn.Config):
    """uvicorn's configuration, and the TLS of this moment."""

    live: LiveWebConfig


class _Connection(H11Protocol):
    """uvicorn's connection with a time limit: uvicorn itself waits for ever for a complete request.

    With TLS, each connection does the handshake with the current certificates before it counts as made.
    """

    config: _Config
    _limit: asyncio.TimerHandle | None = None
    _handshake: asyncio.Task[None] | None = None
    _early: bytes | None = None
    """bytes that came after the handshake, before its end was noticed"""
    since = 0.0
    """when it was made or its last request began, by the clock of the event loop"""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.connections.add(self)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()
        self._start_clock()
        self.config.live.refresh()
        if self.config.live.tls is None:
            super().connection_made(transport)
        else:
            self._early = b""
            tls = self.config.live.config.tls
            allowed = () if tls is None else tls.allowed_sans
            self._handshake = self.loop.create_task(self._shake_hands(transport, self.config.live.tls, allowed))

    async def _shake_hands(self, transport: asyncio.Transport, context: ssl.SSLContext, sans: Collection[str]) -> None:
        """TLS's handshake; with `sans`, the client's certificate must have one of these names."""
        try:
            secured = await self.loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=CLOSING_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            secured = None
        if secured is None or (sans and _names(secured).isdisjoint(sans)):
            (secured or transport).abort()
            self._stop_clock()
            self.connections.discard(self)
            return
        early, self._early = self._early, None
        super().connection_made(secured)
        if early:
            self.data_received(early)

    def _make_room(self) -> None:
        others = [
            connection
            for connection in self.connections
            if isinstance(connection, _Connection) and connection is not self
        ]
        if idle := [connection for connection in others if connection.is_idle]:
            min(idle, key=lambda connection: connection.since).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered: none has come, or its answer is sent to the last byte."""
        return self.conn.our_state is h11.IDLE and not self.transport.get_write_buffer_size()

    @override
    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early += data
            return
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._start_clock()

    @override
    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP. uvicorn would also do so in the middle of another answer, and fail."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.close()
        self._finish_closing()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._finish_closing()

    def _finish_closing(self) -> None:
        # asyncio never ends TLS with a client that left while reading paused, as it does before a body.
        if self.transport.is_closing():
            self.flow.resume_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._unset_keepalive_if_required()  # after an error uvicorn would leave the timer and its objects
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._stop_clock()
        self.since = self.loop.time()
        self._limit = self.loop.call_later(MAX_REQUEST_SECONDS, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()


def _names(transport: asyncio.Transport) -> set[str]:
    """The subject alternative names of a client's certificate: of hosts, addresses, mailboxes and URIs."""
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    # OpenSSL writes IPv6 addresses in full, and in capitals.
    return {
        str(ipaddress.ip_address(name.strip())) if kind == "IP Address" else name
        for kind, name in certificate.get("subjectAltName", ())
    }


class _Uvicorn(uvicorn.Server):
    """A uvicorn server inside a daemon: the daemon handles signals, and its caller can wait for the start."""

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
    """Serves an application on listening sockets, in the running event loop. Installs no signal handlers."""

    def __init__(self, app: ASGIApp, listeners: Sequence[socket.socket], live: LiveWebConfig | None = None) -> None:
        """Serve on sockets that listen already.

        Args:
            app: Answers requests.
            listeners: The sockets; the server closes them.
            live: The file of `--web.config.file` in force, which says whether there is TLS.

        """
        self._listeners = list(listeners)
        config = _Config(
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
        config.live = live or LiveWebConfig(None)
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Port of the first listening socket that has one; 0 if none has."""
        names = [listener.getsockname() for listener in self._listeners if listener.family != socket.AF_UNIX]
        return int(names[0][1]) if names else 0

    async def start(self) -> None:
        """Return once requests are answered. Raises what keeps the server from starting."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._listeners), name="web")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await self._task

    async def stop(self) -> None:
        """Take no more connections, let running answers end, and close the remaining ones after STOP_SECONDS."""
        if self._task is None:
            for listener in self._listeners:
                listener.close()
            return
        self._server.should_exit = True
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if not self._task.done():
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
