"""What any source makes of the values that users of AgentOS put into spans: bounded, printable, or not there at all."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from exporter.core import times
from exporter.core.model import MICROSECONDS
from exporter.core.text import printable, shorten, storable
from exporter.metrics.catalog import VALUE_FIELDS

_NAME_LENGTH: Final = 1024
"""Longest name, in characters, that is kept whole: more than any label may have."""
_ID_LENGTH: Final = 256
_MOST_TOKENS: Final = 10**9
"""More tokens than any model takes or gives. A higher number is not believed, since it would become money."""
_MOST_USD: Final = 1_000_000
"""of one call"""
_EARLIEST: Final = times.micros(datetime(2000, 1, 1, tzinfo=UTC))
_LATEST: Final = times.micros(datetime(2200, 1, 1, tzinfo=UTC))

_eight_bytes: Final = struct.Struct(">Q").unpack


def clean_name(text: str) -> str:
    """A name that can be shown, of bounded length."""
    return shorten(printable(text), _NAME_LENGTH)


def clean_id(text: str) -> str:
    """An id that can be stored, of bounded length."""
    return shorten(storable(text), _ID_LENGTH)


def stand_in(raw: bytes) -> str:
    """The id under which a malformed row without an id is remembered."""
    return "digest-" + blake2b(raw, digest_size=12).hexdigest()


def identifier(value: object) -> str | None:
    """The id, or None if the value is not one."""
    return clean_id(value) if isinstance(value, str) and value else None


def spelled(name: str) -> str:
    """The name of an agent, team or workflow as agno's spans spell it."""
    return name.replace(" ", "_").replace("-", "_")


def moment(value: object) -> int | None:
    """Microseconds of a time in seconds since the epoch or in ISO 8601; None if it is no time of this age."""
    if isinstance(value, str):
        try:
            at = times.parse(value)
        except (ValueError, OverflowError):
            return None
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _LATEST:
        at = round(value * MICROSECONDS)
    else:
        return None
    return at if _EARLIEST <= at < _LATEST else None


def count(value: object) -> int:
    """A number of rows; 0 if it is no number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def tokens(value: object) -> int | None:
    """A token count, or None for what cannot be one."""
    if type(value) is int:  # nearly always
        return value if 0 <= value <= _MOST_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def cost(value: object) -> float | None:
    """The cost that a span reports, in USD; None if it cannot be the cost of one call."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_USD:
        return None
    return value


def not_believed(given: tuple[object, ...], read: tuple[object, ...]) -> tuple[str, ...]:
    """The names, in the order of `VALUE_FIELDS`, of values that were given and read as None: no plausible numbers."""
    if given.count(None) == read.count(None):  # nearly always
        return ()
    pairs = zip(VALUE_FIELDS, given, read, strict=False)  # the API has the first two alone
    return tuple(name for name, value, taken in pairs if value is not None and taken is None)


def span_id(text: str) -> int:
    """A span id as an unsigned 64-bit integer. OpenTelemetry's are 16 hex digits; any other text becomes its digest."""
    if len(text) == 16:  # noqa: PLR2004
        try:
            (known,) = _eight_bytes(bytes.fromhex(text))
        except (ValueError, struct.error):  # not hex, or with spaces, which it ignores
            pass
        else:
            return int(known)
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
