"""Rows that waited at the last reading and are in no list any more: each is asked for by its id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from exporter.sources.api.http import UnknownRoute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.sources.operations import Ended

GONE_AFTER: Final = 3
"""A row that was not found in so many readings is gone: AgentOS also says 404 when its database fails."""
MOST_REMEMBERED: Final = 2000
"""Rows of a list that are remembered; of more, those that wait longest are forgotten."""
_REQUESTS: Final = 20
"""of one turn"""


class Waiting(msgspec.Struct, array_like=True):
    """A row that waits: when it was written (microseconds), what its labels are, and how often it was not found."""

    created: int
    labels: tuple[str, ...] = ()
    misses: int = 0


@dataclass(slots=True)
class Followed:
    """What became of rows: they ended, wait on, or nobody will know."""

    ended: dict[str, Ended] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def lose(self, reason: str) -> None:
        """Count a row whose end nobody will know."""
        self.lost[reason] = self.lost.get(reason, 0) + 1


async def follow(
    missing: Mapping[str, Waiting], fetch: Callable[[str, Waiting], Awaitable[Ended | None]], *, believed: bool
) -> Followed:
    """Ask for rows by their ids, a bounded number of them; the others wait on.

    Args:
        missing: The rows, by id.
        fetch: Reads a row; None where it still waits.
        believed: Whether AgentOS showed any row just now, so that one which is not found is gone.

    Raises:
        SourceError: A row could not be read.

    """
    found = Followed()
    for asked, (row, one) in enumerate(missing.items()):
        if asked >= _REQUESTS:
            found.waiting[row] = one
            continue
        try:
            ended = await fetch(row, one)
        except UnknownRoute:
            misses = one.misses + believed
            if misses >= GONE_AFTER:
                found.lose("gone")
            else:
                found.waiting[row] = Waiting(one.created, one.labels, misses)
            continue
        if ended is None:
            found.waiting[row] = one
        else:
            found.ended[row] = ended
    return found


def remembered(waiting: Mapping[str, Waiting]) -> dict[str, Waiting]:
    """The newest of the rows that wait, as many as are remembered."""
    if len(waiting) <= MOST_REMEMBERED:
        return dict(waiting)
    newest = sorted(waiting, key=lambda row: waiting[row].created, reverse=True)
    return {row: waiting[row] for row in newest[:MOST_REMEMBERED]}
