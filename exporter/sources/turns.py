"""Which of several databases is read first: another one each time that a poll ran out of time, so that none starves."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Turns:
    """The order in which databases are read; at first that of the configuration."""

    def __init__(self) -> None:
        self._first = 0

    def order(self, databases: Sequence[T]) -> list[T]:
        """All of them, in this poll's order."""
        first = self._first % max(1, len(databases))
        return [*databases[first:], *databases[:first]]

    def ran_out_of_time(self) -> None:
        """The next poll begins with another one."""
        self._first += 1
