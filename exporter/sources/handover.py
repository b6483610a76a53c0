"""Where a source begins that replaces another for an AgentOS: a database after the API, or the other way round.

Both count spans by id in one ledger, so a span that both see counts once. The limit is how long the ledger remembers:
it keeps span ids for a day past the cursor under which they were counted. Times are in microseconds.
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
    """By database, including `others`: traces created before this time will not be read again.

    The ledger may forget them. Databases of one AgentOS may have the same trace, so the one that is furthest behind
    decides for all, unless one is unknown. A database that never had a trace does not decide.
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
    """The cutoff of a database that another source read before.

    It continues at the other source's position and looks back as far as configured, for spans that the other could not
    see, but never further than the ledger surely remembers.

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
