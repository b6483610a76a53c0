"""The past of a database: all traces that ended in a period, in the order in which their spans were written.

Pages and readings are those of the feed. Nothing waits: spans whose ancestors never came are shown at once.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from exporter.core.times import stamp
from exporter.sources.database.feed import PAGE, Feed
from exporter.sources.database.listed import newest_of, sorted_out
from exporter.sources.protocol import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from exporter.sources.database.connection import Rows

WAIT: Final = 60.0
"""Most seconds for one page."""


class PastFeed(Feed):
    """Reads the past of one database."""

    gives_up = True

    async def past(self, since: int, until: int, reached: int) -> AsyncGenerator[Batch]:
        """Hand over all traces that ended in a time.

        A span is written some time after its end; the horizon allows for that on both sides.

        Args:
            since: The first end, in microseconds.
            until: The end of the time, in microseconds.
            reached: Only spans that were written since, in microseconds.

        Raises:
            SourceError: The database does not answer.

        """
        last = stamp(until + self.settings.horizon)
        after, before = None, frozenset[str]()
        while True:
            self._deadline = self.clock.monotonic() + WAIT
            await self.connection.open(self._left)
            page = await self.connection.inserted(stamp(reached), after, PAGE, wait=self._left)
            ids, ignored = sorted_out(page)
            # The traces at the end of the last page may go on in this one; they were read whole.
            wanted = [trace_id for trace_id in ids if trace_id not in before]
            async with aclosing(self._readings(wanted)) as readings:
                async for reading, _ in readings:
                    traces = [trace for trace in reading.traces if since <= trace.end < until]
                    ignored += [(trace_id, "malformed") for trace_id in reading.malformed]
                    self.stats.traces += len(traces)
                    yield Batch(self.db, traces, ignored=ignored, follows=True)
                    ignored = []
            if len(page) < PAGE or self._is_past(page, last):
                yield Batch(self.db, cursor={"reached": until + self.settings.horizon})
                return
            yield Batch(self.db, cursor={"reached": newest_of(page) or reached})
            after, before = self._last(page), frozenset(ids)

    def _is_past(self, page: Rows, last: str) -> bool:
        """Whether a page reaches beyond this moment."""
        created = self._last(page)[0]
        return created > last if isinstance(created, str) else stamp(newest_of(page)) > last
