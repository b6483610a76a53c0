"""How often whole tables may be counted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from exporter.core.model import Clock
    from exporter.sources.database.connection import Connection

_PART: Final = 500
"""Counts may take 1/500 of the time of a database."""


class Pace:
    """Delays a count until its cost allows the next one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._not_before = float("-inf")

    @property
    def due(self) -> bool:
        """Whether the count may be made now."""
        return self._clock.monotonic() >= self._not_before

    @contextlib.contextmanager
    def counting(self, connections: Collection[Connection]) -> Iterator[None]:
        """Measure the time spent on these connections, also by a failure."""
        before = sum(connection.seconds for connection in connections)
        try:
            yield
        finally:
            spent = sum(connection.seconds for connection in connections) - before
            self._not_before = self._clock.monotonic() + _PART * spent
