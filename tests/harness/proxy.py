"""A reverse proxy that makes an AgentOS fail: what the real one cannot be made to show, on top of its real answers.

async with FaultyProxy(agentos.base_url) as proxy:
    proxy.fail(status(503, headers={"Retry-After": "3"}), "/traces")
    ...
    proxy.mend()

A fault is a coroutine function that is given the request and `forward`, which asks the real AgentOS; it returns the
reply, or None to close the connection without one. Connections are closed after each reply unless `keep_alive` is set.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

import httpx

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"})
_REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> str:
        """Return the path without the query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """What the client gets.

    Attributes:
        status: of HTTP.
        body: whole, whatever of it is sent.
        headers: besides Content-Length.
        date: Date header; "" leaves it out.
        cut_at: share of the body after which the connection breaks.
        drip: seconds between the twenty pieces in which the body is sent.

    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    date: str = field(default_factory=lambda: formatdate(usegmt=True))
    cut_at: float | None = None
    drip: float = 0.0


Forward = Callable[[], Awaitable[Reply]]
Fault = Callable[[Request, Forward], Awaitable[Reply | None]]


async def works(request: Request, forward: Forward) -> Reply | None:
    """No fault."""
    return await forward()


async def closes(request: Request, forward: Forward) -> Reply | None:
    """Take the request and break the connection."""
    return None


async def hangs(request: Request, forward: Forward) -> Reply | None:
    """Take the request and never answer."""
    await asyncio.Event().wait()
    return None


async def cuts(request: Request, forward: Forward) -> Reply | None:
    """Break the connection in the middle of the body."""
    return replace(await forward(), cut_at=0.5)


async def empties(request: Request, forward: Forward) -> Reply | None:
    """Answer as AgentOS does while its database fails: 200, no rows, total_count 0."""
    await forward()
    meta = {"page": 1, "limit": 1, "total_pages": 0, "total_count": 0, "search_time_ms": 0.4}
    return Reply(body=json.dumps({"data": [], "meta": meta}).encode())


def status(code: int, detail: str = "", headers: Mapping[str, str] | None = None) -> Fault:
    """Refuse, with FastAPI's `detail`."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        body = json.dumps({"detail": detail}).encode() if detail else b"upstream error"
        return Reply(code, body, headers or {})

    return fault


def says(body: str, content_type: str = "application/json") -> Fault:
    """Answer 200 with something else."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        return Reply(body=body.encode(), headers={"Content-Type": content_type})

    return fault


def redirects(location: str, code: int = 307) -> Fault:
    """Send the client elsewhere."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        return Reply(code, headers={"Location": location})

    return fault


def encodes(name: str) -> Fault:
    """Send the answer as it is, and say that it is encoded."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        reply = await forward()
        return replace(reply, headers={**reply.headers, "Content-Encoding": name})

    return fault


def slow(delay: float, *, drip: float = 0.0) -> Fault:
    """Answer late, the body in twenty pieces `drip` seconds apart."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        await asyncio.sleep(delay)
        return replace(await forward(), drip=drip)

    return fault


def alters(change: Callable[[Any], None]) -> Fault:
    """Change the JSON of the real answer in place."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        reply = await forward()
        answer = json.loads(reply.body)
        change(answer)
        return replace(reply, body=json.dumps(answer).encode())

    return fault


def dates(shift: float | None = None, *, text: str = "") -> Fault:
    """Answer with a Date header that is `shift` seconds off, or is this text; "" leaves it out."""

    async def fault(request: Request, forward: Forward) -> Reply | None:
        date = text if shift is None else formatdate(time.time() + shift, usegmt=True)
        return replace(await forward(), date=date)

    return fault


class FaultyProxy:
    """Listens on loopback in the running event loop; a context manager.

    Attributes:
        requests: all that came, oldest first.

    """

    def __init__(self, upstream: str = "http://127.0.0.1:1", *, keep_alive: bool = False) -> None:
        """Describe the proxy. Without `upstream`, only faults that do not ask it make sense."""
        self.requests: list[Request] = []
        self._upstream = upstream
        self._keep_alive = keep_alive
        self._faults: list[tuple[str, Fault]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        # A kept connection may be closed by AgentOS just when it is used: that would be a fault of ours.
        none_kept = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(base_url=upstream, timeout=60, trust_env=False, verify=False, limits=none_kept)

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Break all connections and stop."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._client.aclose()

    @property
    def base_url(self) -> str:
        """Return where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def fail(self, fault: Fault, path: str = "/") -> None:
        """From now on answer requests below `path` with this fault; the latest that fits holds."""
        self._faults.insert(0, (path, fault))

    def mend(self) -> None:
        """Pass everything on; requests that hang are broken off."""
        self._faults.clear()
        for task in self._open:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                fault = next((fault for path, fault in self._faults if request.path.startswith(path)), works)
                reply = await fault(request, lambda request=request: self._forward(request))
                if reply is None or not await self._send(writer, reply) or not self._keep_alive:
                    return
        except (OSError, EOFError, asyncio.CancelledError):  # the client went away, or it is over
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _forward(self, request: Request) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        response = await self._client.request(request.method, request.target, headers=headers, content=request.body)
        kept = {name: value for name, value in response.headers.items() if name not in _HOP_BY_HOP}
        return Reply(response.status_code, response.content, kept, response.headers.get("date", ""))

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        """Send a reply; False where it was cut."""
        lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Something')}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        lines += [f"Content-Length: {len(reply.body)}", *([f"Date: {reply.date}"] if reply.date else [])]
        lines += [] if self._keep_alive else ["Connection: close"]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        body = reply.body if reply.cut_at is None else reply.body[: int(len(reply.body) * reply.cut_at)]
        size = max(1, len(body) // 20 if reply.drip else len(body))
        for start in range(0, len(body), size):
            await asyncio.sleep(reply.drip if start else 0)
            writer.write(body[start : start + size])
            await writer.drain()
        await writer.drain()
        return reply.cut_at is None


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Request(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
