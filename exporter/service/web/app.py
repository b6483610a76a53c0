"""The routes of the web server, and their answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.service.web.guard import Guard
from exporter.service.web.live import LiveWebConfig
from exporter.service.web.negotiation import accepts_gzip, negotiate
from exporter.service.web.page import PAGE_HEADERS, landing_page
from exporter.service.web.site import NAME, Paths, Site

_ENCODED: Final = {"vary": "Accept, Accept-Encoding", "cache-control": "no-store"}


def make_app(
    site: Site,
    live: LiveWebConfig | None = None,
    paths: Paths | None = None,
    *,
    reload: Callable[[], Awaitable[str]] | None = None,
    now: Callable[[], float] = time.time,
) -> ASGIApp:
    """The application.

    Args:
        site: What is shown.
        live: Who may see it; everybody where it is None.
        paths: Where the routes lie.
        reload: Reads the configuration anew for `POST /-/reload`, and returns what is wrong with it, '' for nothing.
            None: the route says that `--web.enable-lifecycle` is needed.
        now: Seconds since the epoch; dates the landing page.

    """
    paths = paths or Paths()

    async def index(_: Request) -> Response:
        return Response(landing_page(site, now(), paths), media_type="text/html", headers=PAGE_HEADERS)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse(f"{NAME} is Healthy.\n")

    async def ready(_: Request) -> Response:
        if site.ready():
            return PlainTextResponse(f"{NAME} is Ready.\n")
        return PlainTextResponse(f"{NAME} is not ready: the first poll of each AgentOS has not ended yet.\n", 503)

    async def reload_configuration(_: Request) -> Response:
        if reload is None:
            return PlainTextResponse("Lifecycle API is not enabled: start with --web.enable-lifecycle.\n", 403)
        problem = await reload()
        return PlainTextResponse(f"failed to reload config: {problem}\n", 500) if problem else PlainTextResponse("")

    async def metrics(request: Request) -> Response:
        return _metrics(site, request)

    routes = [
        Route(f"{paths.prefix}{paths.telemetry}", metrics),
        Route(f"{paths.prefix}/", index),
        Route(f"{paths.prefix}/-/healthy", healthy),
        Route(f"{paths.prefix}/-/ready", ready),
        Route(f"{paths.prefix}/-/reload", reload_configuration, methods=["POST", "PUT"]),
    ]
    return Guard(Router(routes, redirect_slashes=False, default=_not_found), live or LiveWebConfig(None))


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("404 page not found\n", 404)(scope, receive, send)


def _metrics(site: Site, request: Request) -> Response:
    rendered = site.rendered()
    if rendered is None:
        return PlainTextResponse("Nothing can be shown just now.\n", 503)
    if request.method == "GET":
        # No await lies between `rendered` and this call, so the recorded version is the one that is sent.
        site.scraped()
    as_openmetrics, content_type = negotiate(",".join(request.headers.getlist("accept")))
    headers = {**_ENCODED, "content-type": content_type}
    if accepts_gzip(",".join(request.headers.getlist("accept-encoding"))):
        body = rendered.openmetrics_gzip if as_openmetrics else rendered.text_gzip
        return Response(body, headers={**headers, "content-encoding": "gzip"})
    return Response(rendered.openmetrics if as_openmetrics else rendered.text, headers=headers)
