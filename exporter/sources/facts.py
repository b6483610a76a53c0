"""What any source makes of the values that users of AgentOS put into spans: bounded, printable, or not there at all."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL_LENGTH: Final = 256
"""Longest name, in characters, that becomes a label; the rest is cut off."""
ID_LENGTH: Final = 256
_MOST_TOKENS: Final = 10**9
"""More than any model takes in or gives out; what is above is no count, and would be money."""
_MOST_USD: Final = 1_000_000
"""of one call"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_eight_bytes: Final = struct.Struct(">Q").unpack


def micros(moment: datetime) -> int:
    """Microseconds since the epoch; a time without zone is UTC, as agno stores it."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def clean(text: str, length: int) -> str:
    """Text that can be encoded, stored and shown; lone surrogates and NUL cannot."""
    text = text[:length]
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\0", "�")


def clean_id(text: str) -> str:
    """An id, no longer than the ledger and labels take it."""
    return clean(text, ID_LENGTH)


def stand_in(raw: bytes) -> str:
    """By what a malformed row is remembered that has no id of its own."""
    return "digest-" + blake2b(raw, digest_size=12).hexdigest()


def identifier(value: object) -> str | None:
    """An id, or None for what is none."""
    return clean(value, ID_LENGTH) if isinstance(value, str) and value else None


def spelled(name: str) -> str:
    """The name of an agent, team or workflow as agno's spans spell it."""
    return name.replace(" ", "_").replace("-", "_")


def tokens(value: object) -> int | None:
    """A token count, or None for what cannot be one."""
    if type(value) is int:  # as nearly all are
        return value if 0 <= value <= _MOST_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def cost(value: object) -> float | None:
    """What a span says it cost, in USD, or None for what cannot be the cost of one call."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_USD:
        return None
    return value


def not_believed(given: Iterable[tuple[str, object, object]]) -> tuple[str, ...]:
    """The fields, of (field, value as given, value as read), whose values are no plausible numbers."""
    return tuple(name for name, value, read in given if value is not None and read is None)


def span_id(text: str) -> int:
    """A span id as an unsigned 64-bit integer; OpenTelemetry's are 16 hex digits, anything else goes by its digest."""
    if len(text) == 16:  # noqa: PLR2004
        try:
            (known,) = _eight_bytes(bytes.fromhex(text))
        except (ValueError, struct.error):  # not hex, or spaces, which it passes over
            pass
        else:
            return int(known)
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
