"""Where a source begins that takes an AgentOS over from another: a database from the API, or the other way round.

Both count spans by id in one ledger, so what both see counts once. What matters is how far back the ledger remembers:
it keeps the ids of spans for a day past the cursor under which they were counted. Times are in microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.sources.position import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from exporter.sources.position import Position

DATABASE: Final = "database"
"""`source` in the cursor of a database; the API's have none."""
_REMEMBERED: Final = 23 * HOUR
"""A little less than the ledger keeps."""


def is_misdated(end: int, created: int) -> bool:
    """Whether a trace ended, as its spans have it, over a day before it was written: its dates cannot be right."""
    return created - end > DAY


def floors(positions: Mapping[str, Position | None], others: Iterable[str]) -> dict[str, int]:
    """By database, `others` too: traces created before this moment will not be read again, so the ledger may forget.

    Databases of one AgentOS may hold the same trace, so the one that is furthest behind decides for all of them, as
    long as none is unknown; one that never held a trace decides nothing.
    """
    stored = [position for position in positions.values() if position is not None]
    if not stored or len(stored) < len(positions):
        return {}
    furthest = min(position.cutoff for position in [position for position in stored if position.seen] or stored)
    return dict.fromkeys([*positions, *others], forgotten([furthest]))


def cutoffs(cursors: Iterable[Mapping[str, Any]]) -> list[int]:
    """How far these cursors reach, but for those that were left behind more than a day before the others."""
    cutoffs = sorted(at for cursor in cursors if isinstance(at := cursor.get("cutoff"), int))
    return [at for at in cutoffs if at >= cutoffs[-1] - _REMEMBERED]


def begin(stood: Collection[int], lookback_start: int, overlap: int, *, own: int | None = None) -> int:
    """The cutoff of a database that others read before.

    It goes on where they stood and looks back as far as is configured, for spans that they could not see, but never
    beyond what the ledger is sure to remember.

    Args:
        stood: The cutoffs of the others.
        lookback_start: The start of the history that is counted on a first start.
        overlap: How far every poll looks back.
        own: The cutoff of its own last cursor; None where it has none.

    """
    if not stood:
        return lookback_start if own is None else own
    start = min(lookback_start, min(stood) - overlap) if own is None else own
    return max(start, max(stood) - _REMEMBERED)


def forgotten(stood: Collection[int]) -> int:
    """Traces created before may have been counted, and forgotten since."""
    return max(stood, default=DAY) - DAY
