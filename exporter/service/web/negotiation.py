"""Which format and encoding a client gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS

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
        # Other schemes would also change plain names (dots) or mean the same here (values).
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
