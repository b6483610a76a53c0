"""The web server: /metrics, a landing page, and the two health routes. A scrape only sends bytes that are ready.

`Site` is all it knows of the rest: it never reaches a poller, a source or the ledger, so no request can cause a poll.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import logging
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from string import Template
from typing import Any, Final, Protocol

import h11
import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.core.errors import ListenError
from exporter.metrics.render import Rendered

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

NAME: Final = "agentos-exporter"

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

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One AgentOS as the landing page shows it.

    `state` is `ok`, `starting` or the outcome of the last poll, `url` how it is reached (user and password are never
    shown), times are in seconds since the epoch and None where there was none, `error` is '' while all is well.
    """

    name: str
    url: str
    state: str
    last_poll: float | None = None
    last_success: float | None = None
    error: str = ""


class Site(Protocol):
    """What the web server asks the daemon. Every call is made in the event loop and must return at once."""

    @property
    def version(self) -> str:
        """Version of the exporter."""

    def rendered(self) -> Rendered | None:
        """What /metrics sends now; None before anything was rendered."""

    def scraped(self) -> None:
        """A GET of /metrics is about to be answered with what `rendered` has just returned."""

    def ready(self) -> bool:
        """Whether the state is loaded and a first poll of each AgentOS has ended."""

    def instances(self) -> Sequence[InstanceStatus]:
        """Every configured AgentOS."""


# Content negotiation

_PARAMETERS: Final = re.compile(r"""\s*;\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*("[^"]*"|[^\s;"]*)""")
_QUALITY: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
_GZIP_NAMES: Final = frozenset({"gzip", "x-gzip"})


@dataclass(frozen=True, slots=True)
class _Range:
    """One entry of an Accept or Accept-Encoding header."""

    name: str
    parameters: dict[str, str]
    quality: float


def _ranges(header: str) -> Iterator[_Range]:
    for entry in header.split(","):
        name, semicolon, rest = entry.partition(";")
        parameters = {key.lower(): value.strip('"') for key, value in _PARAMETERS.findall(semicolon + rest)}
        quality = parameters.pop("q", "1")
        yield _Range(name.strip().lower(), parameters, float(quality) if _QUALITY.fullmatch(quality) else 0)


def negotiate(accept: str) -> tuple[bool, str]:
    """Whether an Accept header gets OpenMetrics, and the content type of the answer.

    OpenMetrics 1.0.0 and text 1.0.0 go only to those who name them; everyone else gets text 0.0.4, even who asks for
    something else alone (prometheus_client does the same). Among equal q-values the richer format wins.
    The names of our metrics need no escaping, so text 1.0.0 is text 0.0.4 under another content type.
    """
    best = (0.0, 0)
    chosen = (False, CONTENT_TYPE_PLAIN_0_0_4)
    for accepted in _ranges(accept):
        version = accepted.parameters.get("version", "")
        # Other schemes would respell plain names as well (dots) or mean the same here (values).
        escaping = ALLOWUTF8 if accepted.parameters.get("escaping") == ALLOWUTF8 else UNDERSCORES
        if accepted.name == "application/openmetrics-text" and version in {"", "1.0.0"}:
            rank = 3
            # Without a version the client is too old to know of escaping.
            suffix = f"; escaping={escaping}" if version else ""
            offer = (True, f"{CONTENT_TYPE_OPENMETRICS}{suffix}")
        elif accepted.name == "text/plain" and version == "1.0.0":
            rank, offer = 2, (False, f"{CONTENT_TYPE_PLAIN_1_0_0}; escaping={escaping}")
        elif accepted.name in {"text/plain", "text/*", "*/*"} and version in {"", "0.0.4"}:
            rank, offer = 1, (False, CONTENT_TYPE_PLAIN_0_0_4)
        else:
            continue
        if accepted.quality > 0 and (accepted.quality, rank) > best:
            best, chosen = (accepted.quality, rank), offer
    return chosen


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip and does not prefer the plain bytes."""
    qualities = {coding.name: coding.quality for coding in _ranges(accept_encoding)}
    compressed = max((quality for name, quality in qualities.items() if name in _GZIP_NAMES), default=0.0)
    return compressed > 0 and compressed >= qualities.get("identity", 0)


# Answers

_TEXT: Final = "text/plain; charset=utf-8"
_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]

    def header(self, name: bytes) -> str:
        """All values of a header as one list, '' where it is absent."""
        return ",".join(value.decode("latin-1") for key, value in self.headers if key == name)

    @property
    def has_body(self) -> bool:
        """Whether the client announces a body, which nobody here reads."""
        return bool(self.header(b"transfer-encoding")) or self.header(b"content-length") not in {"", "0"}


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes
    content_type: str = _TEXT
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


_NOT_ALLOWED: Final = _Answer(
    b"405 method not allowed\n", status=HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", ", ".join(_METHODS)),)
)


def make_app(site: Site, *, now: Callable[[], float] = time.time) -> Application:
    """The ASGI application. `now` (seconds since the epoch) dates the landing page."""
    routes: dict[str, Callable[[_Request], _Answer]] = {
        "/": lambda _: _landing(site, now()),
        "/metrics": lambda request: _metrics(site, request),
        "/-/healthy": lambda _: _Answer(f"{NAME} is Healthy.\n".encode()),
        "/-/ready": lambda _: _ready(site),
    }

    def answer(request: _Request) -> _Answer:
        route = routes.get(request.path)
        if route is None:
            return _Answer(b"404 page not found\n", status=HTTPStatus.NOT_FOUND)
        return route(request) if request.method in _METHODS else _NOT_ALLOWED

    async def app(
        scope: Scope,
        _receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        request = _Request(scope["method"], scope["path"], scope["headers"])
        given = answer(request)
        headers = [
            ("content-type", given.content_type),
            ("content-length", str(len(given.body))),
            ("x-content-type-options", "nosniff"),
            *given.headers,
        ]
        if request.has_body:
            headers.append(("connection", "close"))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": int(given.status), "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else given.body})

    return app


def _metrics(site: Site, request: _Request) -> _Answer:
    rendered = site.rendered()
    if rendered is None:
        return _Answer(b"Nothing is rendered yet.\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
    if request.method == "GET":
        # In the same step of the event loop as `rendered`: what is recorded as scraped is what is sent.
        site.scraped()
    as_openmetrics, content_type = negotiate(request.header(b"accept"))
    headers = (("vary", "Accept, Accept-Encoding"), ("cache-control", "no-store"))
    if accepts_gzip(request.header(b"accept-encoding")):
        body = rendered.openmetrics_gzip if as_openmetrics else rendered.text_gzip
        return _Answer(body, content_type, headers=(*headers, ("content-encoding", "gzip")))
    return _Answer(rendered.openmetrics if as_openmetrics else rendered.text, content_type, headers=headers)


def _ready(site: Site) -> _Answer:
    if site.ready():
        return _Answer(f"{NAME} is Ready.\n".encode())
    text = f"{NAME} is not ready: the first poll of each AgentOS has not ended yet.\n"
    return _Answer(text.encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)


# The landing page

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6577; --line: #dfe3ea; --paper: #f6f7f9; --card: #fff;
  --link: #1f5fd0; --good: #14743c; --good-bg: #dff5e7; --bad: #a11b1b; --bad-bg: #fce4e4; --wait: #6b5300;
  --wait-bg: #fbf0cc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #313947; --paper: #12161d;
  --card: #1a202a; --link: #86b0ff; --good: #8ce0ac; --good-bg: #14361f; --bad: #ffb0b0; --bad-bg: #461b1b;
  --wait: #ecd27a; --wait-bg: #3c3210; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 3rem 1.25rem; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -0.01em; }
h1 small { font-size: 0.9rem; font-weight: 400; color: var(--soft); margin-left: 0.4rem; letter-spacing: 0; }
h2 { font-size: 1.05rem; margin: 2.5rem 0 0.75rem; }
p { margin: 0.5rem 0 0; color: var(--soft); max-width: 46rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 0.6rem; margin-top: 1.5rem; }
nav a { padding: 0.4rem 0.9rem; border: 1px solid var(--line); border-radius: 0.5rem; background: var(--card);
  text-decoration: none; }
nav a:hover, nav a:focus { border-color: var(--link); }
.card { overflow-x: auto; border: 1px solid var(--line); border-radius: 0.6rem; background: var(--card); }
table { width: 100%; border-collapse: collapse; font-size: 0.925rem; }
th, td { padding: 0.65rem 1rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 600; }
td.url, td.error { overflow-wrap: anywhere; }
td.url { color: var(--soft); }
time { white-space: nowrap; }
.state { padding: 0.1rem 0.55rem; border-radius: 1rem; white-space: nowrap; color: var(--bad);
  background: var(--bad-bg); }
.state.ok { color: var(--good); background: var(--good-bg); }
.state.starting { color: var(--wait); background: var(--wait-bg); }
"""

_PAGE: Final = Template(f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{NAME}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{NAME} <small>$version</small></h1>
<p>A Prometheus exporter for Agno's AgentOS. It reads the traces of the instances below and counts each span once:
runs, LLM calls, tokens, tool calls, errors and durations.</p>
<nav>
<a href="/metrics">Metrics</a>
<a href="/-/healthy">Healthy</a>
<a href="/-/ready">Ready</a>
</nav>
<h2>AgentOS instances</h2>
<div class="card">
<table>
<thead>
<tr><th scope="col">Name</th><th scope="col">Address</th><th scope="col">State</th><th scope="col">Last poll</th>
<th scope="col">Last success</th><th scope="col">Last error</th></tr>
</thead>
<tbody>
$rows
</tbody>
</table>
</div>
</main>
</body>
</html>
""")

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_HEADERS: Final = (
    (
        "content-security-policy",
        "; ".join(
            (
                "default-src 'none'",
                f"style-src 'sha256-{_STYLE_HASH}'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        ),
    ),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
)
_STATE_CLASSES: Final = frozenset({"ok", "starting"})
_USERINFO: Final = re.compile(r"(://)[^\s/]*@")


def _landing(site: Site, now: float) -> _Answer:
    rows = "\n".join(_row(instance, now) for instance in site.instances())
    empty = '<tr><td colspan="6">None yet.</td></tr>'
    page = _PAGE.substitute(version=escape(site.version), rows=rows or empty)
    # Half a surrogate pair in an error text has no UTF-8 form.
    body = page.encode("utf-8", "backslashreplace")
    return _Answer(body, "text/html; charset=utf-8", headers=_PAGE_HEADERS)


def _row(instance: InstanceStatus, now: float) -> str:
    error = escape(_USERINFO.sub(r"\1", instance.error))
    known = instance.state if instance.state in _STATE_CLASSES else ""
    return (
        f'<tr><th scope="row">{escape(instance.name)}</th><td class="url">{escape(shown_url(instance.url))}</td>'
        f'<td><span class="state {known}">{escape(instance.state)}</span></td>'
        f"<td>{_moment(instance.last_poll, now)}</td><td>{_moment(instance.last_success, now)}</td>"
        f'<td class="error">{error or "none"}</td></tr>'
    )


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment.

    Cuts at the last @ wherever it stands, so a password with unescaped reserved characters does not show in part.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    place = rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", place, maxsplit=1)[0]


def _moment(seconds: float | None, now: float) -> str:
    if seconds is None:
        return "never"
    try:
        at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "unknown"
    return f'<time datetime="{at}" title="{at}">{_ago(max(0, round(now - seconds)))}</time>'


def _ago(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


# The server

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
