"""The landing page, of `page.html` and `style.css`."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from exporter.service.web.site import NAME, InstanceStatus, Paths, Site

_FILES: Final = files("exporter.service.web")
STYLE: Final = (_FILES / "style.css").read_text("utf-8")
_PAGE: Final = Template((_FILES / "page.html").read_text("utf-8"))
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PAGE_HEADERS: Final = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{STYLE_HASH}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STATE_CLASSES: Final = frozenset({"ok", "starting"})
_USERINFO: Final = re.compile(r"(://)[^\s/]*@")


def landing_page(site: Site, now: float, paths: Paths) -> bytes:
    """The landing page, with a table of the instances.

    Args:
        site: What the page shows.
        now: Seconds since the epoch.
        paths: The paths of the routes.

    """
    rows = "\n".join(_row(instance, now) for instance in site.instances())
    empty = '<tr><td colspan="6">None yet.</td></tr>'
    page = _PAGE.substitute(
        name=NAME,
        style=STYLE,
        version=escape(site.version),
        external=escape(paths.external),
        telemetry=escape(paths.telemetry),
        rows=rows or empty,
    )
    return page.encode("utf-8", "backslashreplace")  # half a surrogate in an error text has no UTF-8 form


def _row(instance: InstanceStatus, now: float) -> str:
    error = escape(_USERINFO.sub(r"\1", instance.error))
    state_class = instance.state if instance.state in _STATE_CLASSES else ""
    return (
        f'<tr><th scope="row">{escape(instance.name)}</th><td class="url">{escape(shown_url(instance.url))}</td>'
        f'<td><span class="state {state_class}">{escape(instance.state)}</span></td>'
        f"<td>{_moment(instance.last_poll, now)}</td><td>{_moment(instance.last_success, now)}</td>"
        f'<td class="error">{error or "none"}</td></tr>'
    )


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment.

    It is cut at the last @, so no part of a password with unescaped reserved characters is shown.
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
