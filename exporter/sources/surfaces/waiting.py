"""Rows that waited at the last reading and are in no list any more: each is asked for by its id."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.sources.operations import Ended

GONE_AFTER: Final = 3
"""A row that so many readings did not find is gone: AgentOS also answers 404 when its database fails."""
MOST_REMEMBERED: Final = 2000
"""Rows of a list that are remembered; of more, those that wait longest are forgotten."""


class Waiting(msgspec.Struct, array_like=True):
    """A waiting row: when it was written (microseconds), its labels, and how often it was not found."""

    created: int
    labels: tuple[str, ...] = ()
    misses: int = 0


@dataclass(slots=True)
class Followed:
    """The state of rows that waited: they ended, wait on, or their end is unknown."""

    ended: dict[str, Ended] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def count_lost(self, reason: str) -> None:
        """Count a row whose end will stay unknown."""
        self.lost[reason] = self.lost.get(reason, 0) + 1


async def follow(
    missing: Mapping[str, Waiting],
    find: Callable[[Mapping[str, Waiting]], Awaitable[Mapping[str, Ended | None]]],
    *,
    most: int,
    believed: bool,
) -> Followed:
    """Ask for rows by their ids, a bounded number of them; the others wait on.

    Args:
        missing: The rows, by id.
        find: Reads rows: None for one that still waits, and nothing for one that is not found.
        most: How many are asked for.
        believed: Whether AgentOS showed any row just now, so that one which is not found is gone.

    Raises:
        SourceError: A row could not be read.

    """
    followed = Followed()
    asked = dict(islice(missing.items(), most))
    rows = await find(asked) if asked else {}
    for row, waiting in missing.items():
        if row not in asked:
            followed.waiting[row] = waiting
        elif row not in rows:
            misses = waiting.misses + believed
            if misses >= GONE_AFTER:
                followed.count_lost("gone")
            else:
                followed.waiting[row] = Waiting(waiting.created, waiting.labels, misses)
        elif (ended := rows[row]) is None:
            followed.waiting[row] = waiting
        else:
            followed.ended[row] = ended
    return followed


def remembered(waiting: Mapping[str, Waiting]) -> dict[str, Waiting]:
    """The newest of the rows that wait, as many as are remembered."""
    if len(waiting) <= MOST_REMEMBERED:
        return dict(waiting)
    newest = sorted(waiting, key=lambda row: waiting[row].created, reverse=True)
    return {row: waiting[row] for row in newest[:MOST_REMEMBERED]}
