"""What one head request found: it asks for all traces that ended since the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.core.model import MICROSECONDS

if TYPE_CHECKING:
    from exporter.sources.api.http import Answer


@dataclass(slots=True)
class Head:
    """What one head request found. Times are in microseconds.

    Attributes:
        request_at: When it was sent, in monotonic seconds.
        own_now: Our clock.
        date: The server's clock, None where it does not tell.
        newest: The latest end of a trace.
        rows: How many traces were read.
        complete: Whether all traces since the cutoff were read.
        too_many: Whether there are more than one pass may read: a backlog.

    """

    request_at: float
    own_now: int
    date: int | None = None
    newest: int = 0
    rows: int = 0
    complete: bool = False
    too_many: bool = False

    @property
    def as_of(self) -> int:
        """The server's clock, or ours if the server does not tell."""
        return self.date if self.date is not None else self.own_now

    def answered(self, answer: Answer) -> None:
        """Take the clock of the first answer."""
        if self.date is None and answer.date is not None:
            self.date = int(answer.date * MICROSECONDS)
