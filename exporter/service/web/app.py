"""The ASGI application: routes and their answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from exporter.service.web.negotiation import accepts_gzip, negotiate
from exporter.service.web.page import PAGE_HEADERS, landing_page
from exporter.service.web.site import NAME, Site

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_TEXT: Final = "text/plain; charset=utf-8"
_HTML: Final = "text/html; charset=utf-8"
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
        """Whether the client announces a body. No route reads one."""
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
        "/": lambda _: _Answer(landing_page(site, now()), _HTML, headers=PAGE_HEADERS),
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
        # No await lies between `rendered` and this call, so the recorded version is the one that is sent.
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
